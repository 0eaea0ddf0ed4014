"""The paper's tables as data, with the provenance of every cell.

The cells have not been checked against the paper's PDF. A cell with a star is `corroborated`: an independent
publication repeats it. Every other cell is `recalled`, and all output marks it as such.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

Provenance = Literal["corroborated", "recalled"]
_NAMES_IN_RESULTS = {"pg19_bytes": "PG19 bytes", "pg19_tokens": "PG19 tokens", "arxiv": "arXiv", "github": "GitHub"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperCell:
    """A number of the paper.

    Attributes:
        text: the number as printed in the paper.
        provenance: `corroborated` or `recalled`.
    """

    text: str
    provenance: Provenance

    @property
    def value(self) -> float:
        """The number, in the unit of its column."""
        return float(self.text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        name: key of the column.
        title: heading.
        unit: unit of its cells.
        data: data set, by its file in `gin/data/`; None if the column does not depend on data.
        split: split of the scores; None if the column does not depend on data.
        stand_in: True if the paper's corpus was never released, so reproduced cells use other documents.
    """

    name: str
    title: str
    unit: str
    data: str | None = None
    split: str | None = None
    stand_in: bool = False

    @property
    def paper_column(self) -> str | None:
        """The name of the column's data in results (`records.DataSet.paper_column`)."""
        return _NAMES_IN_RESULTS.get(self.data or "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A row of a table: one model.

    Attributes:
        name: name in the paper.
        gin_file: experiment file that reproduces the row; None for other authors' models and unknown settings.
        cells: cells by column; a missing column is empty in the paper or not known here.
        ablation: state ablation that the row measures (`evaluate --ablations`); None for the unchanged model.
        note: remark for the reader.
    """

    name: str
    gin_file: str | None
    cells: Mapping[str, PaperCell]
    ablation: str | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table or figure of the paper.

    Attributes:
        name: name on the command line.
        title: title of the table.
        source: source of the cells.
        columns: from left to right.
        rows: from top to bottom.
    """

    name: str
    title: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[PaperRow, ...]


def _cells(columns: tuple[Column, ...], texts: str) -> dict[str, PaperCell]:
    """Parses blank-separated cells from left to right; a star means corroborated, `-` an empty cell."""
    pairs = zip(columns, texts.split(), strict=True)
    return {
        column.name: PaperCell(text=text.rstrip("*"), provenance="corroborated" if text.endswith("*") else "recalled")
        for column, text in pairs
        if text != "-"
    }


_STEP_TIME = Column(name="step_time", title="step time", unit="relative to Slide:13L")
_PG19_BYTES = Column(name="pg19_bytes", title="PG19 bytes", unit="bits per byte", data="pg19_bytes", split="test")
_PG19_TOKENS = Column(name="pg19_tokens", title="PG19 tokens", unit="bits per token", data="pg19_tokens", split="test")
_ARXIV = Column(name="arxiv", title="arXiv", unit="bits per token", data="arxiv", split="test", stand_in=True)
_GITHUB = Column(name="github", title="GitHub", unit="bits per token", data="github", split="test", stand_in=True)
_WORD_PERPLEXITY = Column(
    name="word_perplexity", title="PG19 words", unit="perplexity per word", data="pg19_tokens", split="test"
)
_TOKEN_PERPLEXITY = Column(
    name="token_perplexity", title="PG19 tokens", unit="perplexity per token", data="pg19_tokens", split="test"
)
_PARAMETERS = Column(name="parameters", title="parameters", unit="millions without the embedding")

_TABLE_1_COLUMNS = (_STEP_TIME, _PG19_BYTES, _PG19_TOKENS, _ARXIV, _GITHUB)


def _table_1_row(name: str, gin_file: str, cells: str, note: str = "") -> PaperRow:
    return PaperRow(name=name, gin_file=f"gin/table1/{gin_file}.gin", cells=_cells(_TABLE_1_COLUMNS, cells), note=note)


_MEMORIZING = "inferred: the official code's memory, for which no official file has 64k"

TABLE_1 = PaperTable(
    name="table1",
    title="Table 1: average bits per token, and step time",
    source="Hutchins et al. 2022, arXiv:2203.07852, table 1",
    columns=_TABLE_1_COLUMNS,
    rows=(
        _table_1_row("XL:512", "xl_512", "0.88* 1.01 3.62* 1.45* 1.21*"),
        _table_1_row("XL:1024", "xl_1024", "1.20 0.997 3.59 1.37 1.08"),
        _table_1_row("XL:2048", "xl_2048", "2.11* 0.990* 3.58* 1.31* 1.01*"),
        _table_1_row("Slide:12L", "slide_12l", "0.93 0.989 3.60 1.43 1.19"),
        _table_1_row("Slide:13L", "slide_13l", "1.00* 0.989 3.58* 1.42* 1.17*"),
        _table_1_row("Rec:lstm:dual", "rec_lstm_dual", "1.06 0.985 3.54 1.26 1.01"),
        _table_1_row("Rec:lstm:single", "rec_lstm_single", "1.05 0.962 3.54 1.29 1.03"),
        _table_1_row("Rec:lstm:skip", "rec_lstm_skip", "1.00 0.969 3.56 1.31 1.10"),
        _table_1_row("Rec:fixed:dual", "rec_fixed_dual", "1.01 0.957 3.52 1.27 0.991"),
        _table_1_row("Rec:fixed:single", "rec_fixed_single", "1.02 0.966 3.58 1.25 1.00"),
        _table_1_row("Rec:fixed:skip", "rec_fixed_skip", "0.99* 0.952* 3.53* 1.24* 0.976*"),
        _table_1_row("Feedback:lstm:single", "feedback_lstm_single", "1.40 0.977 3.50 1.22 -"),
        _table_1_row("Feedback:fixed:skip", "feedback_fixed_skip", "1.35 0.935* 3.49 1.24 -"),
        _table_1_row("Memorizing Trans. 64k", "memorizing_64k", "1.94 0.950* 3.53* 1.22* -", _MEMORIZING),
    ),
)

_INFERRED = "the size is inferred from the official code's size files"
_PEER = "inferred: the widths with which 13 layers have 1.3B parameters, and a sliding window as in the scaling figure"
_ADDED = "not in the paper"
_TABLE_2_COLUMNS = (_WORD_PERPLEXITY, _PG19_TOKENS)


def _table_2_row(name: str, cells: str, gin_file: str | None = None, note: str = "") -> PaperRow:
    return PaperRow(name=name, gin_file=gin_file, cells=_cells(_TABLE_2_COLUMNS, cells), note=note)


TABLE_2 = PaperTable(
    name="table2",
    title="Table 2: PG19 test, perplexity per word",
    source="Hutchins et al. 2022, arXiv:2203.07852, table 2",
    columns=_TABLE_2_COLUMNS,
    rows=(
        _table_2_row("Compressive Transformer", "33.6* -"),
        _table_2_row("Routing Transformer", "33.2* -"),
        _table_2_row("Perceiver AR (975M)", "28.9* -"),
        _table_2_row("Block-Recurrent 650M", "28.46* -", "gin/table2/rec_650m.gin", _INFERRED),
        _table_2_row("Block-Recurrent 1.3B", "26.50* 3.22*", "gin/table2/rec_1300m.gin", _INFERRED),
        _table_2_row("Transformer-XL, 13 layers, peer of 1.3B", "- 3.31*", "gin/scaling/slide_13l_1200m.gin", _PEER),
        _table_2_row("Slide:26L 1.3B", "- -", "gin/table2/slide_26l_1300m.gin", f"{_ADDED}: 24 layers and two more"),
        _table_2_row("Slide:13L 650M", "- -", "gin/scaling/slide_13l_600m.gin", f"{_ADDED}: 13 layers with 650M"),
        _table_2_row("Slide:26L 650M", "- -", "gin/table2/slide_26l_650m.gin", f"{_ADDED}: 24 layers and two more"),
    ),
)

_LATER_COLUMNS = (_TOKEN_PERPLEXITY, _PG19_TOKENS)
_RPT, _MELODI = "Retrieval-Pretrained Transformer paper", "MELODI paper"
_REC = "gin/table1/rec_fixed_skip.gin"


def _later_row(name: str, gin_file: str | None, cells: str) -> PaperRow:
    return PaperRow(name=name, gin_file=gin_file, cells=_cells(_LATER_COLUMNS, cells))


LATER_RUNS = PaperTable(
    name="later_runs",
    title="Later runs of the official code on PG19: nearer targets than Table 1",
    source=f"the {_RPT} (500k steps) and the {_MELODI} (cosine decay)",
    columns=_LATER_COLUMNS,
    rows=(
        _later_row(f"XL ({_RPT})", None, "11.48 -"),
        _later_row(f"Block-Recurrent ({_RPT})", _REC, "10.95 3.453"),
        _later_row(f"XL ({_MELODI})", None, "11.41 3.512"),
        _later_row(f"Block-Recurrent ({_MELODI})", _REC, "10.98 3.457"),
        _later_row(f"Memorizing ({_MELODI})", None, "10.62 3.409"),
    ),
)

# Millions of parameters without the embedding, for 12 and for 13 layers without recurrence.
_SIZES = {
    "37M": ("37.7", "40.9"),
    "75M": ("75.5", "81.8"),
    "150M": ("151.0", "163.6"),
    "300M": ("302", "327"),
    "600M": ("604", "654"),
    "1200M": ("1208", "1309"),
}
_SCALING_COLUMNS = (_PARAMETERS, _PG19_TOKENS)


def _scaling_rows(size: str, ordinary: str, one_layer_more: str) -> tuple[PaperRow, PaperRow]:
    return (
        PaperRow(
            name=f"Rec:fixed:skip {size}",
            gin_file=f"gin/scaling/rec_{size.lower()}.gin",
            cells={},
            note=f"12 ordinary layers of this size have {ordinary}M parameters; the recurrent one has more",
        ),
        PaperRow(
            name=f"Slide:13L {size}",
            gin_file=f"gin/scaling/slide_13l_{size.lower()}.gin",
            cells=_cells(_SCALING_COLUMNS, f"{one_layer_more} -"),
        ),
    )


SCALING = PaperTable(
    name="scaling",
    title="Scaling: six sizes, recurrent or with one layer more",
    source="Hutchins et al. 2022, arXiv:2203.07852; sizes of the official code; the losses are not known here",
    columns=_SCALING_COLUMNS,
    rows=tuple(row for size, millions in _SIZES.items() for row in _scaling_rows(size, *millions)),
)


def _ablation(name: str, file: str, finding: str, ablation: str | None = None) -> PaperRow:
    return PaperRow(name=name, gin_file=f"gin/ablations/{file}.gin", cells={}, ablation=ablation, note=finding)


_MORE_STATES = "the more states up to 1024 the better, by little"

ABLATIONS = PaperTable(
    name="ablations",
    title="Ablations of Rec:fixed:skip",
    source="Hutchins et al. 2022, arXiv:2203.07852, section 4; findings are recalled, their numbers not known here",
    columns=(_PG19_TOKENS,),
    rows=(
        PaperRow(name="Rec:fixed:skip", gin_file=_REC, cells=_cells((_PG19_TOKENS,), "3.53*"), note="what others vary"),
        _ablation("128 states", "states_128", _MORE_STATES),
        _ablation("256 states", "states_256", _MORE_STATES),
        _ablation("1024 states", "states_1024", _MORE_STATES),
        _ablation("2048 states", "states_2048", "worse than 1024 states"),
        _ablation("recurrence at layer 4", "layer_4", "layer 10 of 12 is the default"),
        _ablation("recurrence at layer 7", "layer_7", "layer 10 of 12 is the default"),
        _ablation("recurrence at layer 12", "layer_12", "layer 10 of 12 is the default"),
        _ablation("recurrence at layers 9 and 10", "layers_9_10", "adjacent recurrent layers do not help"),
        _ablation("recurrence at layers 7 and 10", "layers_7_10", "two recurrent layers, apart"),
        _ablation("window 128", "window_128", "window 512 is the default"),
        _ablation("window 256", "window_256", "window 512 is the default"),
        _ablation("window 1024", "window_1024", "window 512 is the default"),
        _ablation("window 2048", "window_2048", "window 512 is the default"),
        _ablation(
            "state cleared at every segment", "state_cleared", "names read over 60k tokens ago are forgotten", "reset"
        ),
        _ablation("gates as in the paper's text", "paper_gates", "the official code computes otherwise"),
    ),
)

TABLES: Mapping[str, PaperTable] = {table.name: table for table in (TABLE_1, TABLE_2, LATER_RUNS, SCALING, ABLATIONS)}

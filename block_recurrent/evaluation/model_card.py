"""The model card of an export: README.md with the metadata that the Hugging Face hub reads, and the recorded results.

The facts of the run and its scores come from its records. Licences, limits and the text's description come from a TOML
file, `CardText`.
"""

import dataclasses
import json
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from etils import epath

from block_recurrent.data.vocabulary import ByteVocabulary
from block_recurrent.errors import InputError, first_line
from block_recurrent.evaluation.provenance import params_fingerprint
from block_recurrent.evaluation.records import Estimate
from block_recurrent.evaluation.run_results import SplitResults, results_of_step
from block_recurrent.files import write_whole
from block_recurrent.model.language_model import count_params
from block_recurrent.training.metric_writer import read_metrics
from block_recurrent.training.saved_run import SavedRun

CARD_FILE, RESULTS_FOLDER, METRICS_FILE = "README.md", "evaluation", "metrics.jsonl"
_NOT_STATED = "Not stated."
_TAGS = ["block-recurrent-transformer", "jax", "flax"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardText:
    """The parts of a card that a run does not record; each is a field of the TOML file.

    Attributes:
        title: heading of the card; None means the name of the folder.
        summary: a paragraph about the model.
        license: licence of the parameters, as an identifier of the hub such as `apache-2.0`.
        languages: languages of the text, such as `en`.
        training_text: a paragraph about the training text and its origin.
        text_licences: licences of the training text, one line for each part.
        limits: uses and inputs for which the model is not fit, one line each.
    """

    title: str | None = None
    summary: str | None = None
    license: str = "unknown"
    languages: tuple[str, ...] = ()
    training_text: str | None = None
    text_licences: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One row of the card's table of scores.

    Attributes:
        data: name of the data.
        split: name of the split.
        bits_per_byte: loss in bits / UTF-8 bytes of the scored tokens; with an interval from `evaluate`.
        tokens: scored tokens.
        documents: scored documents.
        complete: True if every token of the split except the first of a document was scored.
        file: the record, relative to the card's folder.
    """

    data: str
    split: str
    bits_per_byte: Estimate
    tokens: int
    documents: int
    complete: bool
    file: str


def read_card_text(path: epath.Path) -> CardText:
    """Reads the TOML file of `--card`.

    Raises:
        InputError: the file cannot be read, or a field is unknown or has a value of another type.
    """
    fields = [field.name for field in dataclasses.fields(CardText)]
    try:
        given = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:  # not there, not UTF-8, not TOML
        raise InputError(f"--card {path}: cannot be read as TOML: {first_line(error)}") from None
    if unknown := sorted(given.keys() - set(fields)):
        raise InputError(f"--card {path}: unknown field {unknown[0]!r}; allowed: {', '.join(fields)}")
    try:
        return msgspec.convert(given, CardText)
    except msgspec.ValidationError as error:
        raise InputError(f"--card {path}: {first_line(error)}") from None


def write_card(folder: epath.Path, saved: SavedRun, text: CardText, name: str) -> list[Score]:
    """Writes the card, and copies of the records that its scores come from.

    Args:
        folder: folder of the export; it must exist.
        saved: the checkpoint that is exported.
        text: what the run does not record.
        name: name of the model.

    Returns:
        The scores on the card; empty if the run has no evaluation of this checkpoint.

    Raises:
        InputError: a record of the run is damaged.
    """
    contributions = []
    if saved.folder is not None:
        fingerprint = params_fingerprint(saved.params)
        for source, results in results_of_step(saved.folder, saved.step):
            if results.scores.subject.fingerprint == fingerprint:  # else of other parameters with the same step
                _copy(source, results, folder / source.relative_to(saved.folder))
                contributions += _contribution(results)
        _copy_evaluations(saved, folder)
    scores = card_scores(folder, saved.step, eval_store=epath.Path(saved.config.data.store).name)
    write_whole(folder / CARD_FILE, render(saved, text, name, scores, contributions))
    return scores


def card_scores(folder: epath.Path, step: int, *, eval_store: str) -> list[Score]:
    """Returns the scores of an export's records: those of `evaluate`, then those of evaluation during training.

    Args:
        folder: folder of the export.
        step: training steps of the checkpoint.
        eval_store: name of the store of evaluation during training.
    """
    scores, done = [], set()
    for source, results in results_of_step(folder, step):
        found = results.scores
        done.add((source.parent.parent.name, found.data.split))
        scores.append(
            Score(
                data=found.data.label,
                split=found.data.split,
                bits_per_byte=found.bits_per_byte,
                tokens=found.tokens,
                documents=found.documents,
                complete=found.data.part is None,
                file=(source / found.FILE).relative_to(folder).as_posix(),
            )
        )
    last = {line["group"]: line for line in read_metrics(folder) if line["step"] == step}
    for split, line in last.items():
        if (eval_store, split) not in done:
            counts = {"tokens": line["tokens"], "documents": line["documents"], "complete": line["complete"]}
            value = Estimate(value=line["bits_per_byte"])
            scores.append(Score(data=eval_store, split=split, bits_per_byte=value, file=METRICS_FILE, **counts))
    return scores


def _copy(source: epath.Path, results: SplitResults, target: epath.Path) -> None:
    """Copies the JSON files of an evaluation, not the losses of tokens and documents."""
    target.mkdir(parents=True, exist_ok=True)
    for field in dataclasses.fields(results):
        if (result := getattr(results, field.name)) is not None:
            write_whole(target / result.FILE, (source / result.FILE).read_bytes())


def _copy_evaluations(saved: SavedRun, folder: epath.Path) -> None:
    """Copies the evaluations during training up to the exported step."""
    assert saved.folder is not None
    lines = [
        json.dumps(line)
        for line in read_metrics(saved.folder)
        if line["group"] not in ("train", "speed") and "complete" in line and line["step"] <= saved.step
    ]
    if lines:
        write_whole(folder / METRICS_FILE, "\n".join(lines) + "\n")


def _contribution(results: SplitResults) -> Iterator[str]:
    if results.ablations is not None:
        yield f"{results.scores.data.label}, {results.scores.data.split}: {results.ablations.contribution.text}"


def render(saved: SavedRun, text: CardText, name: str, scores: Sequence[Score], contributions: Sequence[str]) -> str:
    """Returns the card as Markdown after its metadata in YAML."""
    sections = {
        "Use": _use(),
        "Model": _model(saved),
        "Training data": _training_data(saved, text),
        "Scores": [*_score_table(scores), *([""] if contributions else []), *(f"* {line}" for line in contributions)],
        "Limits": [f"* {limit}" for limit in text.limits] or [_NOT_STATED],
        "Files": _files(),
    }
    lines = [*_metadata(text, name, scores), f"# {text.title or name}", ""]
    if text.summary:
        lines += [text.summary, ""]
    for heading, body in sections.items():
        lines += [f"## {heading}", "", *body, ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _metadata(text: CardText, name: str, scores: Sequence[Score]) -> list[str]:
    """Returns the YAML at the top; its values are written as JSON, which is YAML too."""
    results = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": score.data, "type": score.data, "split": score.split},
            "metrics": [{"type": "bits_per_byte", "value": score.bits_per_byte.value}],
        }
        for score in scores
    ]
    fields: dict[str, Any] = {"license": text.license}
    if text.languages:
        fields["language"] = text.languages
    fields |= {"library_name": "block-recurrent", "pipeline_tag": "text-generation", "tags": _TAGS}
    if results:
        fields["model-index"] = [{"name": name, "results": results}]
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in fields.items()), "---", ""]


def _use() -> list[str]:
    return [
        "FOLDER is this folder, or the name of a model that is installed with the package:",
        "",
        "```sh",
        'python -m block_recurrent generate --model FOLDER --prompt "..."',
        'python -m block_recurrent score --model FOLDER --text "..."',
        "```",
    ]


def _model(saved: SavedRun) -> list[str]:
    config, shape = saved.config.model, saved.config.data
    facts = {
        "parameters": f"{count_params(config):,}",
        "layers": f"{config.num_layers}, width {config.embed_dim}",
        "window": "none" if config.window_length is None else f"{config.window_length} tokens",
        "recurrent layers": ", ".join(map(str, sorted(config.recurrent_indices))) or "none",
    }
    if config.recurrent_indices:
        facts["states"] = f"{config.num_states} vectors, cell `{config.cell}`, gate `{config.gate}`"
    if config.memory_indices:
        layers = ", ".join(map(str, sorted(config.memory_indices)))
        kind = f"{config.memory_neighbors} of {config.memory_size:,} tokens, {config.memory_retrieval} retrieval"
        facts["external memory"] = f"layers {layers}: {kind}"
    vocabulary = saved.data["stores"][0]["vocabulary"]
    kind = "bytes" if vocabulary["fingerprint"] == ByteVocabulary.fingerprint else "SentencePiece"
    facts["vocabulary"] = f"{kind}, {vocabulary['size']:,} tokens, fingerprint `{vocabulary['fingerprint'][:12]}`"
    facts["steps"] = f"{saved.step:,}, each of {shape.batch_size} rows of {shape.segment_length} tokens"
    return ["| | |", "|---|---|", *(f"| {name} | {fact} |" for name, fact in facts.items())]


def _training_data(saved: SavedRun, text: CardText) -> list[str]:
    training = saved.training()
    lines = [text.training_text, ""] if text.training_text else []
    lines += ["| corpus | source | split | documents | bytes | tokens | fingerprint |", "|---|---|---|---|---|---|---|"]
    for store in training["stores"]:
        counts = " | ".join(f"{store['counts'][name]:,}" for name in ("documents", "bytes", "tokens"))
        name = store.get("corpus", store["source"])
        lines.append(f"| {name} | {store['source']} | {store['split']} | {counts} | `{store['fingerprint'][:12]}` |")
    lines += [
        "",
        f"Tokens trained: at most {training['positions']:,} (steps x rows x segment length; the last segment of a "
        "document is padded).",
    ]
    if training["init_from"] is not None:
        lines[-1] += f" The first parameters came from `{training['init_from']}`; its tokens are not counted."
    return [
        *lines,
        "",
        "Licences of the training text:",
        "",
        *(f"* {line}" for line in text.text_licences or [_NOT_STATED]),
    ]


def _score_table(scores: Sequence[Score]) -> list[str]:
    if not scores:
        return ["No evaluation of this checkpoint was recorded."]
    lines = [
        "Bits per byte: the loss in bits, divided by the UTF-8 bytes of the scored tokens; lower is better. Every",
        "token except the first of a document is scored once, with carried state. Intervals are percentile bootstraps",
        "over documents.",
        "",
        "| data | split | bits per byte | interval | scored tokens | documents | part | record |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for score in scores:
        bits = score.bits_per_byte
        interval = "-" if bits.low is None or bits.high is None else f"{bits.low:.4f} to {bits.high:.4f}"
        part = "whole split" if score.complete else "first segments of each row"
        lines.append(
            f"| {score.data} | {score.split} | {bits.value:.4f} | {interval} | {score.tokens:,} | {score.documents:,} "
            f"| {part} | [{score.file}]({score.file}) |"
        )
    return lines


def _files() -> list[str]:
    return [
        "| file | contents |",
        "|---|---|",
        "| `params.safetensors`, `config.json` | parameters; configuration, vocabulary and training |",
        "| `vocabulary.model` | the vocabulary; a model of bytes has none |",
        f"| `{RESULTS_FOLDER}/`, `{METRICS_FILE}` | the records of the scores, as in the run's folder |",
    ]

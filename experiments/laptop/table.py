"""The laptop reproduction as a table: the paper's comparison in miniature, on the source of Python packages."""

from block_recurrent.paper.tables import Column, PaperRow, PaperTable

VANILLA, XL, XL_4W = "Vanilla", "XL:W", "XL:4W"
SLIDE_4L, SLIDE = "Slide", "Slide:+1 layer"
REC, REC_LSTM, FEEDBACK = "Rec:fixed:skip", "Rec:lstm:skip", "Feedback:fixed:skip"
RESET, HIDDEN = "Rec:fixed:skip, state reset", "Rec:fixed:skip, states hidden"

_THE_SAME = "the same trained model, evaluated with "

LAPTOP = PaperTable(
    name="laptop",
    title="The paper's comparison at laptop size",
    source="none: no cell of the paper is of this size",
    columns=(
        Column(
            name="python_packages",
            title="Source of Python packages",
            unit="bits per byte",
            data="python_packages",
            split="test",
        ),
    ),
    rows=(
        PaperRow(name=SLIDE_4L, gin_file="gin/laptop/slide.gin", cells={}),
        PaperRow(name=SLIDE, gin_file="gin/laptop/slide_5l.gin", cells={}),
        PaperRow(name=REC, gin_file="gin/laptop/rec_fixed_skip.gin", cells={}),
        PaperRow(
            name=RESET,
            gin_file="gin/laptop/rec_fixed_skip.gin",
            cells={},
            ablation="reset",
            note=_THE_SAME + "its state reset at every segment",
        ),
        PaperRow(
            name=HIDDEN,
            gin_file="gin/laptop/rec_fixed_skip.gin",
            cells={},
            ablation="window_only",
            note=_THE_SAME + "tokens that do not attend to the states",
        ),
        PaperRow(name=XL_4W, gin_file="gin/laptop/xl_4w.gin", cells={}),
        PaperRow(name=REC_LSTM, gin_file="gin/laptop/rec_lstm_skip.gin", cells={}),
        PaperRow(name=FEEDBACK, gin_file="gin/laptop/feedback_fixed_skip.gin", cells={}),
        PaperRow(name=XL, gin_file="gin/laptop/xl_w.gin", cells={}),
        PaperRow(name=VANILLA, gin_file="gin/laptop/vanilla.gin", cells={}),
    ),
)

# The rows that the claims compare are trained with three seeds.
SEEDS = {SLIDE: (0, 1, 2), REC: (0, 1, 2), XL_4W: (0, 1, 2)}

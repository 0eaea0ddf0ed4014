"""The laptop reproduction as a table: the paper's comparison in miniature, on Python's standard library."""

from block_recurrent.paper.tables import Column, PaperRow, PaperTable

XL, XL_4W, SLIDE, REC, RESET = "XL:W", "XL:4W", "Slide:+1 layer", "Rec:fixed:skip", "Rec:fixed:skip, state reset"

LAPTOP = PaperTable(
    name="laptop",
    title="The paper's comparison at laptop size",
    source="none: no cell of the paper is of this size",
    columns=(
        Column(
            name="python_stdlib",
            title="Python's standard library",
            unit="bits per byte",
            data="python_stdlib",
            split="validation",  # two fifths of the test split are one file of documentation
        ),
    ),
    rows=(
        PaperRow(name=XL, gin_file="gin/laptop/xl_w.gin", cells={}),
        PaperRow(name=XL_4W, gin_file="gin/laptop/xl_4w.gin", cells={}),
        PaperRow(name=SLIDE, gin_file="gin/laptop/slide_5l.gin", cells={}),
        PaperRow(name=REC, gin_file="gin/laptop/rec_fixed_skip.gin", cells={}),
        PaperRow(
            name=RESET,
            gin_file="gin/laptop/rec_fixed_skip.gin",
            cells={},
            ablation="reset",
            note="the same trained model, evaluated with its state reset at every segment",
        ),
    ),
)

# The rows that the claims compare are trained with two seeds.
SEEDS = {SLIDE: (0, 1), REC: (0, 1)}

"""The paper's tables as experiment files: each is built with every data set and recipe and compared with the paper."""

import dataclasses
import itertools
from typing import Any

import pytest

from block_recurrent.aot.summary import summarise
from block_recurrent.cli import gin_files
from block_recurrent.config import EvaluationConfig, ModelConfig, RunConfig
from block_recurrent.errors import InputError
from block_recurrent.model.flops import forward_flops
from block_recurrent.model.language_model import abstract_params
from block_recurrent.paper.tables import TABLE_1, TABLE_2, TABLES
from block_recurrent.trees import named_leaves

DATA = {"pg19_bytes": 260, "pg19_tokens": 32128, "arxiv": 32128, "github": 32128}
RECIPES = ("inverse_square_root", "cosine")
ROWS = {row.gin_file: row for table in TABLES.values() for row in table.rows if row.gin_file}
TOKENS_PER_STEP = 32 * 4096

# Size: embed_dim, num_heads, head_dim, mlp_dim; millions of kernel parameters of 12 and 13 ordinary layers.
SIZES = {
    "37m": (512, 8, 64, 2048, 37.7, 40.9),
    "75m": (512, 8, 128, 4096, 75.5, 81.8),
    "150m": (1024, 8, 128, 4096, 151.0, 163.6),
    "300m": (1024, 16, 128, 8192, 302, 327),
    "600m": (2048, 16, 128, 8192, 604, 654),
    "1200m": (2048, 32, 128, 16384, 1208, 1309),
}
# Row: segment, window, layers, recurrent layers, states, gate, cell, feedback.
TABLE_1_ROWS: dict[str, tuple[Any, ...]] = {
    "XL:512": (512, 512, 12, ()),
    "XL:1024": (1024, 1024, 12, ()),
    "XL:2048": (2048, 2048, 12, ()),
    "Slide:12L": (4096, 512, 12, ()),
    "Slide:13L": (4096, 512, 13, ()),
    "Rec:lstm:dual": (4096, 512, 12, (9,), 512, "lstm", "dual", False),
    "Rec:lstm:single": (4096, 512, 12, (9,), 512, "lstm", "single", False),
    "Rec:lstm:skip": (4096, 512, 12, (9,), 512, "lstm", "skip", False),
    "Rec:fixed:dual": (4096, 512, 12, (9,), 512, "fixed", "dual", False),
    "Rec:fixed:single": (4096, 512, 12, (9,), 512, "fixed", "single", False),
    "Rec:fixed:skip": (4096, 512, 12, (9,), 512, "fixed", "skip", False),
    "Feedback:lstm:single": (4096, 512, 12, (9,), 512, "lstm", "single", True),
    "Feedback:fixed:skip": (4096, 512, 12, (9,), 512, "fixed", "skip", True),
    "Memorizing Trans. 64k": (512, 512, 12, ()),
}
MEMORY_SIZES = {"8k": 8192, "32k": 32768, "64k": 65536}


def build(*names: str) -> RunConfig:
    gin_files.parse([name if name.endswith(".gin") else f"gin/{name}.gin" for name in names], None)
    return gin_files.configured_run()


def built(gin_file: str, data: str = "data/pg19_tokens") -> RunConfig:
    return build(gin_file, data, "recipes/inverse_square_root")


def kernels(config: ModelConfig) -> dict[str, int]:
    """Returns the number of kernel parameters that act on tokens and on states."""
    sizes = {"tokens": 0, "states": 0}
    for name, leaf in named_leaves(abstract_params(config)["layers"]).items():
        if name.endswith("kernel"):
            sizes["states" if "/states/" in name else "tokens"] += leaf.size
    return sizes


def expected_flops(config: ModelConfig) -> float:
    """Returns the forward FLOPs of a token, from the sizes of kernels and attention (paper, section 3)."""
    window, states = config.window_length, config.num_states
    assert window is not None
    heads, recurrent = config.num_heads * config.head_dim, len(config.recurrent_indices)
    attending = config.num_layers if config.feedback else recurrent
    count = kernels(config)
    tokens = 2 * count["tokens"] + config.num_layers * 4 * window * heads + attending * 4 * states * heads
    per_state = 2 * count["states"] + recurrent * 4 * (states + 2 * window) * heads
    # Scores of all slots, then keys and values of the best of each bucket; attention to these.
    tokens += len(config.memory_indices) * (3 * 2 * config.memory_size + 4 * config.memory_neighbors) * heads
    return tokens + per_state * states / window + 2 * config.embed_dim * config.vocab_size


def hidden_kernels(config: ModelConfig) -> int:
    """Returns how many kernels act on the hidden layer: the candidate has one, and each of the two lstm gates."""
    return 3 if config.gate == "lstm" else 1


def expected_state_kernels(config: ModelConfig) -> int:
    """Returns the number of kernel parameters of one recurrent layer that act on states (paper, section 3.2)."""
    e, m, hd, gated = config.embed_dim, config.mlp_dim, config.num_heads * config.head_dim, hidden_kernels(config)
    cells = {
        "skip": gated * 2 * hd * e,
        "single": 2 * hd * m + gated * m * e,
        "dual": gated * 2 * hd * e + e * m + gated * m * e,
    }
    return 4 * e * hd + cells[config.cell]


@pytest.mark.parametrize("gin_file", ROWS)
def test_every_row_builds_with_every_data_set_and_recipe(gin_file):
    for data, recipe in itertools.product(DATA, RECIPES):
        run = build(gin_file, f"data/{data}", f"recipes/{recipe}")
        assert run.model.vocab_size == DATA[data]
        assert run.data.segment_length * run.data.batch_size == TOKENS_PER_STEP
        assert (run.train.num_steps, run.optimizer.warmup_steps) == (500_000, 1000)
        assert (run.optimizer.momentum, run.optimizer.decay_rate, run.optimizer.learning_rate) == (0.9, 0.8, 1.0)
        assert (run.model.dropout_rate, run.model.attention_dropout_rate, run.model.dtype) == (0.05, 0.05, "bfloat16")
        if recipe == "cosine":
            assert (run.optimizer.schedule, run.optimizer.max_rate, run.optimizer.min_rate) == ("cosine", 0.01, 0.001)
        else:
            assert (run.optimizer.schedule, run.optimizer.max_rate) == ("rsqrt", None)


def test_the_files_order_never_matters():
    names = ("table1/rec_fixed_skip", "data/arxiv", "recipes/cosine")
    assert len({build(*order) for order in itertools.permutations(names)}) == 1


def test_two_recipes_or_two_rows_contradict_each_other():
    for pair in (RECIPES, ("../table1/xl_512", "../table1/slide_12l")):
        with pytest.raises(InputError, match="contradict each other"):
            build("data/arxiv", *(f"recipes/{name}" for name in pair))


@pytest.mark.parametrize("name", TABLE_1_ROWS)
def test_rows_of_table_1_are_the_papers(name):
    gin_file = next(row.gin_file for row in TABLE_1.rows if row.name == name)
    assert gin_file is not None
    run = built(gin_file)
    model = run.model
    segment, window, layers, recurrent, *rest = TABLE_1_ROWS[name]
    assert (run.data.segment_length, model.window_length, model.num_layers) == (segment, window, layers)
    assert model.recurrent_indices == frozenset(recurrent)
    assert (model.embed_dim, model.num_heads, model.head_dim, model.mlp_dim) == SIZES["150m"][:4]
    if recurrent:
        assert [model.num_states, model.gate, model.cell, model.feedback] == rest
        assert kernels(model)["states"] == expected_state_kernels(model)
    else:
        assert round(kernels(model)["tokens"] / 1e6, 1) == SIZES["150m"][4 + (layers == 13)]
    assert sum(forward_flops(model, segment).values()) == pytest.approx(expected_flops(model), rel=1e-12)


@pytest.mark.parametrize("size", MEMORY_SIZES)
def test_memorizing_rows_are_the_official_ones_and_xl_otherwise(size):
    run, xl = built(f"gin/table1/memorizing_{size}.gin"), built("gin/table1/xl_512.gin")
    memory = {"memory_layers": (-4,), "memory_size": MEMORY_SIZES[size], "memory_neighbors": 128}
    assert run.model == dataclasses.replace(xl.model, memory_retrieval="bucketed", **memory)
    assert run.model.memory_indices == {8}  # the ninth of 12
    assert (run.data, run.optimizer, run.train) == (xl.data, xl.optimizer, xl.train)


@pytest.mark.parametrize(("name", "other"), [("memorizing", "xl_w"), ("memorizing_slide", "slide")])
def test_memorizing_laptop_rows_differ_from_their_peers_in_the_memory_alone(name, other):
    run, peer = build(f"laptop/{name}"), build(f"laptop/{other}")
    memory = {"memory_layers": (2,), "memory_size": 4096, "memory_neighbors": 32}
    assert run == dataclasses.replace(peer, model=dataclasses.replace(peer.model, **memory))


def test_every_row_of_table_1_has_an_experiment_and_a_test():
    assert [row.name for row in TABLE_1.rows] == list(TABLE_1_ROWS)
    assert all(row.gin_file for row in TABLE_1.rows)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_of_the_scaling_figure(size):
    *widths, twelve, thirteen = SIZES[size]
    recurrent, baseline = built(f"gin/scaling/rec_{size}.gin").model, built(f"gin/scaling/slide_13l_{size}.gin").model
    for model in (recurrent, baseline):
        assert [model.embed_dim, model.num_heads, model.head_dim, model.mlp_dim] == widths
    ordinary = dataclasses.replace(recurrent, recurrent_layers=(), num_states=0)
    digits = 1 if twelve < 200 else 0
    assert round(kernels(ordinary)["tokens"] / 1e6, digits) == twelve
    assert round(kernels(baseline)["tokens"] / 1e6, digits) == thirteen
    assert sum(forward_flops(recurrent, 4096).values()) == pytest.approx(expected_flops(recurrent), rel=1e-12)


@pytest.mark.parametrize(("name", "size", "ordinary"), [("650m", "300m", 604), ("1300m", "600m", 1208)])
def test_rows_of_table_2(name, size, ordinary):
    model = built(f"gin/table2/rec_{name}.gin").model
    assert (model.embed_dim, model.num_heads, model.head_dim, model.mlp_dim) == SIZES[size][:4]
    assert (model.num_layers, model.recurrent_indices) == (24, {9, 19})
    without = dataclasses.replace(model, recurrent_layers=(), num_states=0)
    assert round(kernels(without)["tokens"] / 1e6) == ordinary
    assert sum(forward_flops(model, 4096).values()) == pytest.approx(expected_flops(model), rel=1e-12)


# Comparison of Table 2: size of the widths, layers, millions of kernel parameters.
COMPARISONS = {
    "Transformer-XL, 13 layers, peer of 1.3B": ("1200m", 13, 1309),
    "Slide:26L 1.3B": ("600m", 26, 1309),
    "Slide:13L 650M": ("600m", 13, 654),
    "Slide:26L 650M": ("300m", 26, 654),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_of_table_2_have_the_size_in_their_name_and_no_recurrence(name):
    (row,) = [row for row in TABLE_2.rows if row.name == name]
    assert row.gin_file is not None
    run = built(row.gin_file)
    size, layers, millions = COMPARISONS[name]
    model = run.model
    assert (model.embed_dim, model.num_heads, model.head_dim, model.mlp_dim) == SIZES[size][:4]
    assert (model.num_layers, model.recurrent_layers) == (layers, ())
    assert (run.data.segment_length, model.window_length) == (4096, 512)
    assert round(kernels(model)["tokens"] / 1e6) == millions
    assert sum(forward_flops(model, 4096).values()) == pytest.approx(expected_flops(model), rel=1e-12)


def test_the_tests_of_table_2_cover_every_row_with_an_experiment():
    recurrent = {"Block-Recurrent 650M", "Block-Recurrent 1.3B"}
    assert {row.name for row in TABLE_2.rows if row.gin_file} == recurrent | COMPARISONS.keys()


@pytest.mark.parametrize("layers", [13, 26])
def test_comparisons_of_table_2_match_the_recurrent_models_in_parameters(layers):
    """The recurrent models have 24 layers. Their states add parameters, so the sizes differ by a few percent."""
    for size, widths in (("650m", {13: "600m", 26: "300m"}), ("1300m", {13: "1200m", 26: "600m"})):
        recurrent = sum(kernels(built(f"gin/table2/rec_{size}.gin").model).values())
        names = {13: f"gin/scaling/slide_13l_{widths[13]}.gin", 26: f"gin/table2/slide_26l_{size}.gin"}
        assert sum(kernels(built(names[layers]).model).values()) == pytest.approx(recurrent, rel=0.03)


@pytest.mark.parametrize("gin_file", [file for file in ROWS if "/ablations/" in file])
def test_ablations_differ_from_the_best_row_in_one_thing(gin_file):
    ours, best = built(gin_file), built("gin/table1/rec_fixed_skip.gin")
    different = {
        field.name
        for field in dataclasses.fields(ModelConfig)
        if getattr(ours.model, field.name) != getattr(best.model, field.name)
    }
    kind = gin_file.rsplit("/", 1)[1]
    fields = {
        "states_": "num_states",
        "layer": "recurrent_layers",
        "window": "window_length",
        "paper": "gate_equations",
    }
    assert different == {name for prefix, name in fields.items() if kind.startswith(prefix)}
    assert (ours.data, ours.train, ours.optimizer) == (best.data, best.train, best.optimizer)


def test_the_row_with_cleared_states_binds_the_evaluation_alone():
    built("gin/ablations/state_cleared.gin")
    assert gin_files.bindings(EvaluationConfig) == {"reset_segments": 1}


def test_recurrence_costs_about_as_much_as_the_thirteenth_layer():
    """The paper reports this for step times. Here FLOPs and parameters are printed and bounded."""
    baseline = built("gin/table1/slide_13l.gin").model
    flops, params = sum(forward_flops(baseline, 4096).values()), sum(kernels(baseline).values())
    for row in TABLE_1.rows:
        if row.gin_file is not None:
            model = built(row.gin_file).model
            relative = sum(forward_flops(model, 4096).values()) / flops, sum(kernels(model).values()) / params
            print(f"{row.name:22} {relative[0]:.3f} of Slide:13L's FLOPs, {relative[1]:.3f} of its parameters")
            if row.name.startswith("Rec:"):
                assert 0.9 < relative[0] < 1.3


def test_describe_shows_tokens_per_step_and_parameters():
    run = built("gin/table1/rec_fixed_skip.gin")
    model, summary = run.model, summarise(run, 32)
    assert dict(summary.batch)["tokens per step"] == "131,072"
    states = 2 * 512 * 1024  # initial states and their positions; the rest are scales and relative positions
    kernels_and_states = sum(kernels(model).values()) + states
    assert 0 < int(dict(summary.layers)["all but the embedding"].replace(",", "")) - kernels_and_states < 50_000

import dataclasses
from typing import Any

import pytest

from block_recurrent.config import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    fields_that_may_differ,
)
from block_recurrent.errors import InputError
from block_recurrent.model.language_model import count_params

SMALL: dict[str, Any] = {
    "vocab_size": 260,
    "embed_dim": 8,
    "num_layers": 4,
    "num_heads": 2,
    "head_dim": 4,
    "mlp_dim": 16,
    "window_length": 16,
}


MEMORY: dict[str, Any] = {"memory_layers": (1,), "memory_size": 64, "memory_neighbors": 4}


def small(**fields: Any) -> ModelConfig:
    return ModelConfig(**(SMALL | fields))


def optimizer_config(**fields: Any) -> OptimizerConfig:
    return OptimizerConfig(**fields)


# Size: (embed_dim, num_heads, head_dim, mlp_dim), {number of layers: millions of parameters without the embedding}.
SIZES = {
    "37M": ((512, 8, 64, 2048), {12: 37.7, 13: 40.9}),
    "75M": ((512, 8, 128, 4096), {12: 75.5, 13: 81.8}),
    "150M": ((1024, 8, 128, 4096), {12: 151.0, 13: 163.6, 24: 302, 26: 327}),
    "300M": ((1024, 16, 128, 8192), {12: 302, 13: 327, 24: 604, 26: 654}),
    "600M": ((2048, 16, 128, 8192), {12: 604, 13: 654, 24: 1208, 26: 1309}),
    "1200M": ((2048, 32, 128, 16384), {12: 1208, 13: 1309}),
}


@pytest.mark.parametrize(
    ("size", "layers", "millions"),
    [(size, layers, millions) for size, (_, counts) in SIZES.items() for layers, millions in counts.items()],
)
def test_sizes_have_the_papers_parameters(size, layers, millions):
    embed, heads, head_dim, mlp = SIZES[size][0]
    config = ModelConfig(
        vocab_size=32128,
        embed_dim=embed,
        num_layers=layers,
        num_heads=heads,
        head_dim=head_dim,
        mlp_dim=mlp,
        window_length=512,
    )
    kernels = layers * embed * (4 * heads * head_dim + 2 * mlp)
    vectors = layers * (2 * embed + heads + 32 * heads) + embed
    assert count_params(config) == 32128 * embed + kernels + vectors
    assert kernels / 1e6 == pytest.approx(millions, abs=0.06 if millions < 200 else 0.6)


def test_parameters_of_recurrent_layers_are_those_of_the_equations():
    slide = small()
    d, heads, f, s, nh = 8, 2, 16, 6, 8
    projections = d + 4 * d * nh + 2 * heads  # norm; keys, values, queries, cross-queries; two scales
    token_side = d * nh + heads + nh * d  # cross-queries, their scale, and the output's second half
    states = s * d * 2 + projections
    lstm, fixed = 2 * d, d  # biases; the lstm gate also has kernels
    cells = {
        ("skip", "fixed"): 2 * nh * d + fixed,
        ("skip", "lstm"): 3 * 2 * nh * d + lstm,
        ("single", "fixed"): 2 * nh * f + f * d + fixed,
        ("single", "lstm"): 2 * nh * f + 3 * f * d + lstm,
        ("dual", "fixed"): 2 * nh * d + fixed + d + d * f + f * d + fixed,
        ("dual", "lstm"): 3 * 2 * nh * d + lstm + d + d * f + 3 * f * d + lstm,
    }
    for (cell, gate), size in cells.items():
        config = small(recurrent_layers=(-1,), num_states=s, cell=cell, gate=gate)
        assert count_params(config) - count_params(slide) == token_side + states + size
    feedback = small(recurrent_layers=(-1,), num_states=s, feedback=True)
    plain = dataclasses.replace(feedback, feedback=False)
    assert count_params(feedback) - count_params(plain) == 3 * token_side


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 0}, "ModelConfig.vocab_size = 0: must be an integer of at least 1"),
        ({"embed_dim": 8.0}, "ModelConfig.embed_dim = 8.0: must be an integer"),
        ({"num_heads": True}, "ModelConfig.num_heads = True: must be an integer"),
        ({"window_length": -1}, "ModelConfig.window_length = -1"),
        ({"dropout_rate": 1.0}, "ModelConfig.dropout_rate = 1.0: must be a number of at least 0 and below 1"),
        ({"gate_init_bias": 20}, "ModelConfig.gate_init_bias = 20: must be a number of at least -20 and below 20"),
        ({"gate_init_bias": "high"}, "ModelConfig.gate_init_bias = 'high': must be a number"),
        ({"dtype": "float16"}, "ModelConfig.dtype = 'float16': must be one of 'float32', 'bfloat16'"),
        ({"cell": "triple"}, "ModelConfig.cell = 'triple': must be one of 'dual', 'single', 'skip'"),
        ({"gate": "bias"}, "ModelConfig.gate = 'bias': must be one of 'fixed', 'lstm'"),
        ({"recurrent_layers": (4,), "num_states": 2}, r"recurrent_layers = \(4,\): must be layer indices from -4 to 3"),
        ({"recurrent_layers": (-5,), "num_states": 2}, "-5 is not"),
        ({"recurrent_layers": (0, -4), "num_states": 2}, "two entries name the same one"),
        ({"recurrent_layers": 1, "num_states": 2}, "recurrent_layers = 1: must be a tuple"),
        ({"recurrent_layers": ("a",), "num_states": 2}, "'a' is not"),
        ({"recurrent_layers": (1,)}, "ModelConfig.num_states = 0: must be an integer of at least 1"),
        ({"recurrent_layers": (1,), "num_states": 2, "window_length": None}, "window_length = None: must be an int"),
        ({"feedback": True}, "ModelConfig.feedback = True: must be False without recurrent layers"),
        ({"memory_layers": (4,)}, r"memory_layers = \(4,\): must be layer indices from -4 to 3"),
        ({"memory_layers": (1, -3)}, r"memory_layers = \(1, -3\): must be distinct layers"),
        ({"memory_layers": 1}, "memory_layers = 1: must be a tuple of layer indices"),
        ({"memory_layers": (1,), "memory_neighbors": 4}, "memory_size = 0: must be an integer of at least 1"),
        ({"memory_layers": (1,), "memory_size": 4}, "memory_neighbors = 0: must be an integer of at least 1"),
        ({"memory_size": -1}, "memory_size = -1: must be an integer of at least 0"),
        (MEMORY | {"memory_neighbors": 65}, "memory_neighbors = 65: must be at most ModelConfig.memory_size = 64"),
        (MEMORY | {"memory_neighbors": 5}, "memory_neighbors = 5: must be a divisor of ModelConfig.memory_size = 64"),
        (MEMORY | {"memory_retrieval": "top"}, "memory_retrieval = 'top': must be one of 'bucketed', 'exact', 'appro"),
        (
            MEMORY | {"memory_size": 24, "recurrent_layers": (1,), "num_states": 2, "feedback": True},
            "memory_size = 24: must be a multiple of ModelConfig.window_length = 16: with block feedback",
        ),
        ({"feedback": "no"}, "ModelConfig.feedback = 'no': must be True or False"),
    ],
)
def test_errors_name_the_field_its_value_and_the_allowed_values(fields, message):
    with pytest.raises(InputError, match=message):
        small(**fields)


def test_exact_retrieval_needs_no_buckets_and_a_memory_no_window():
    config = small(**MEMORY | {"memory_neighbors": 5, "memory_layers": [-1, 1]}, memory_retrieval="exact")
    assert config.memory_indices == {1, 3}
    assert small(**MEMORY, window_length=None).depends_on_segments
    assert not small(**MEMORY, recurrent_layers=(0,), num_states=2, feedback=True).depends_on_segments
    assert small(memory_neighbors=5) != small()  # ignored without memory layers, as num_states


def test_parameters_do_not_depend_on_the_size_of_the_memory():
    sizes = {"memory_size", "memory_neighbors", "memory_retrieval"}
    assert sizes <= fields_that_may_differ("init_from")
    for purpose in ("resume", "saved_state", "token_losses"):
        assert not {*sizes, "memory_layers"} & fields_that_may_differ(purpose)
    assert "memory_layers" not in fields_that_may_differ("init_from")
    plain, one = small(), small(**MEMORY)
    assert count_params(one) == count_params(plain) - 32 * plain.num_heads + plain.num_heads


def test_a_model_config_is_frozen_and_hashable_and_accepts_lists():
    from_list = small(recurrent_layers=[1, -1], num_states=2)
    from_tuple = small(recurrent_layers=(1, -1), num_states=2)
    assert from_list == from_tuple
    assert hash(from_list) == hash(from_tuple)
    assert from_list.recurrent_indices == {1, 3}
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(from_list, "embed_dim", 4)  # noqa: B010


def test_initial_biases_do_not_matter_for_given_parameters():
    for purpose in ("init_from", "saved_state", "token_losses"):
        assert "gate_init_bias" in fields_that_may_differ(purpose)
    assert "gate_init_bias" not in fields_that_may_differ("resume")


def run_config(**model: Any) -> RunConfig:
    return RunConfig(
        model=small(**model),
        data=DataConfig(store="store", segment_length=16, batch_size=2),
        optimizer=OptimizerConfig(),
        train=TrainConfig(num_steps=1),
    )


def test_parts_that_do_not_fit_together_are_refused():
    run_config()
    run_config(window_length=None)
    with pytest.raises(InputError, match=r"segment_length = 16: must be a multiple of ModelConfig.window_length = 12"):
        run_config(window_length=12)
    with pytest.raises(InputError, match=r"segment_length = 16: must be at least .* = 32 .* no gradient"):
        run_config(recurrent_layers=(1,), num_states=2)
    run_config(**MEMORY)
    with pytest.raises(InputError, match=r"segment_length = 16: must divide ModelConfig.memory_size = 40: the memory"):
        run_config(**MEMORY | {"memory_size": 40})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizer_config(schedule="step"), "OptimizerConfig.schedule = 'step': must be one of 'cosine'"),
        (
            lambda: OptimizerConfig(max_rate=0.0001),
            "max_rate = 0.0001: must be at least OptimizerConfig.min_rate",
        ),
        (lambda: OptimizerConfig(momentum=1.0), "OptimizerConfig.momentum = 1.0"),
        (lambda: OptimizerConfig(gate_rate_multiplier=-1), "gate_rate_multiplier = -1: must be a number of at least 0"),
        (lambda: TrainConfig(num_steps=0), "TrainConfig.num_steps = 0"),
        (
            lambda: TrainConfig(num_steps=1, state_report_every=0),
            "state_report_every = 0: must be an integer",
        ),
        (
            lambda: TrainConfig(num_steps=1, state_report_documents=1),
            "TrainConfig.state_report_documents = 1: must be an integer of at least 2",
        ),
        (
            lambda: TrainConfig(num_steps=1, backprop_segments=0),
            "backprop_segments = 0: must be an integer of at least",
        ),
        (lambda: TrainConfig(num_steps=1, state_passing=1.5), "state_passing = 1.5: must be a number from 0 to 1"),
        (
            lambda: TrainConfig(num_steps=1, sample_tokens=5),
            "TrainConfig.sample_tokens = 5: removed; .* `generate --workdir",
        ),
        (lambda: DataConfig(store="", segment_length=1, batch_size=1), "DataConfig.store = ''"),
    ],
)
def test_other_configurations_check_their_fields(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_fused_kernel_needs_a_window_and_on_a_tpu_whole_tiles():
    with pytest.raises(InputError, match=r"attention_kernel = 'fused': must be 'xla' with window_length = None"):
        small(attention_kernel="fused", window_length=None)
    with pytest.raises(InputError, match=r"attention_kernel = 'flash': must be"):
        small(attention_kernel="flash")
    odd = small(attention_kernel="fused")
    odd.check_platform("cpu")
    odd.without_kernels().check_platform("tpu")
    for fields in ({}, {"window_length": 512}, {"head_dim": 128}):
        name = "head_dim" if "window_length" in fields else "window_length"
        with pytest.raises(InputError, match=rf"ModelConfig.{name} = \d+: must be a multiple of 128 with .* on a TPU"):
            small(attention_kernel="fused", **fields).check_platform("tpu")
    small(attention_kernel="fused", window_length=512, head_dim=128).check_platform("tpu")

import dataclasses

import jax

from block_recurrent.aot.summary import summarise
from block_recurrent.config import DataConfig, OptimizerConfig, RunConfig, TrainConfig
from block_recurrent.model.flops import training_flops
from block_recurrent.training.step import abstract_train_state
from tests.support.architectures import MEMORY, SEGMENT


def test_the_summary_counts_external_memories():
    model = dataclasses.replace(MEMORY["memory_and_recurrence"], memory_size=64 * SEGMENT)
    run = RunConfig(
        model=model,
        data=DataConfig(store="store", segment_length=SEGMENT, batch_size=4),
        optimizer=OptimizerConfig(),
        train=TrainConfig(num_steps=1),
    )
    summary = summarise(run, 2)
    layers, memory, flops = dict(summary.layers), dict(summary.memory), dict(summary.flops)
    assert any("recurrent, 5 states" in kind and "memory of 1,024 tokens" in kind for kind in layers)
    assert any("ordinary, memory of 1,024 tokens" in kind for kind in layers)
    # Two layers, keys and values of 2 rows per device in float32; and an index for each row.
    size = 2 * 2 * 2 * (model.num_heads * model.memory_size * model.head_dim * 4) + 2 * 2 * 4
    assert memory["external memories"] == f"{size / 1e6:,.1f} MB"
    both = sum(float(memory[name].split()[0]) for name in ("caches and recurrent states", "external memories"))
    state = abstract_train_state(run).model_state
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) / 2
    assert abs(both - whole / 1e6) < 0.11
    assert flops["training"] == f"{training_flops(model, SEGMENT):,.0f}"
    assert flops["memory retrieval"] == f"{2 * 2 * 12 * 1024:,}"
    plain = dataclasses.replace(run, model=dataclasses.replace(model, memory_layers=()))
    assert "external memories" not in dict(summarise(plain, 2).memory)

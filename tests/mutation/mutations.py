"""Faults of the mathematics, as replacements of text, and the tests that are nearest to each."""

import dataclasses

_MODEL = "tests/model/test_language_model.py"
_PARITY = "tests/interop/test_parity.py"
_POSITIONS = "tests/model/ops/test_positions.py"
_ATTENTION = "tests/model/ops/test_attention.py"
_DECODE = "tests/generation/test_decode_step.py"


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A fault.

    Attributes:
        name: the fault in a few words.
        file: file of the package, relative to `block_recurrent/`.
        text: text that occurs once in the file.
        fault: text in its place.
        tests: files of tests, the nearest first, whose fast tests are run; or single tests, `FILE::NAME`.
    """

    name: str
    file: str
    text: str
    fault: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "mask: the window is one token too short",
        "model/ops/positions.py",
        "(distances <= (num_keys if window is None else window))",
        "(distances < (num_keys + 1 if window is None else window))",
        (_POSITIONS, _MODEL),
    ),
    Mutation(
        "mask: a query sees its own position",
        "model/ops/positions.py",
        "(distances >= 1)",
        "(distances >= 0)",
        (_POSITIONS, _MODEL),
    ),
    Mutation(
        "positions: edges of the logarithmic buckets",
        "model/ops/positions.py",
        "np.log(MAX_DISTANCE / _EXACT)",
        "np.log((MAX_DISTANCE + 1) / _EXACT)",
        (_POSITIONS,),
    ),
    Mutation(
        "positions: distances in the ring of decoding",
        "model/ops/positions.py",
        "(position[:, None] - 1 - jnp.arange(num_slots)[None])",
        "(position[:, None] - jnp.arange(num_slots)[None])",
        (_DECODE,),
    ),
    Mutation(
        "attention: sign of a negative scale",
        "model/ops/attention.py",
        "    scale = jnp.abs(scale)\n",
        "",
        (_ATTENTION, _PARITY, _MODEL),
    ),
    Mutation(
        "attention: a query without keys",
        "model/ops/attention.py",
        " + jnp.exp(NULL_LOGIT - largest)",
        "",
        (_ATTENTION,),
    ),
    Mutation(
        "attention: the softmax's term of the backward pass",
        "model/ops/attention.py",
        "(_drop(by_weight, dropout) - mean)",
        "_drop(by_weight, dropout)",
        (_ATTENTION, _PARITY),
    ),
    Mutation(
        "feed-forward: where the backward pass is active",
        "model/ops/relu.py",
        "active = x > 0",
        "active = x > -1",
        ("tests/model/ops/test_relu.py", _PARITY),
    ),
    Mutation(
        "blocks: which block is the previous one",
        "model/ops/blocks.py",
        "[cache[:, None], x[:, :-1]]",
        "[cache[:, None], x[:, 1:]]",
        ("tests/model/ops/test_blocks.py", _MODEL),
    ),
    Mutation(
        "blocks: halves of a pair exchanged",
        "model/ops/blocks.py",
        "[pairs[:, :, : 3 * half], pairs[:, :, half:]]",
        "[pairs[:, :, half:], pairs[:, :, : 3 * half]]",
        ("tests/model/ops/test_blocks.py", _MODEL),
    ),
    Mutation(
        "dropout: mean of the mask",
        "model/ops/dropout.py",
        ".astype(jnp.float32) / (1 - rate)",
        ".astype(jnp.float32)",
        ("tests/model/ops/test_dropout.py",),
    ),
    Mutation(
        "gate: forget and input exchanged in the fixed gate",
        "model/ops/gates.py",
        "Gates(forget, 1 - forget)",
        "Gates(1 - forget, forget)",
        ("tests/model/layers/test_gates.py", _PARITY, _MODEL),
    ),
    Mutation(
        "gate: sign of the lstm gate's shift",
        "model/ops/gates.py",
        "forget_logits + 1",
        "forget_logits - 1",
        ("tests/model/layers/test_gates.py", _PARITY, _MODEL),
    ),
    Mutation(
        "gate: sign of the candidate",
        "model/ops/gates.py",
        "forget * state + input_gate * candidate",
        "forget * state - input_gate * candidate",
        (_PARITY, _MODEL),
    ),
    Mutation(
        "state: tokens attend to the states after their block",
        "model/layers/recurrent.py",
        "return state, (projected.kv, gates)",
        "return state, (self.project(state).kv, gates)",
        (_MODEL, _PARITY),
    ),
    Mutation(
        "state: it is not reset at the start of a document",
        "model/state.py",
        "select_rows(start_of_document, initial, state)",
        "select_rows(start_of_document, state, state)",
        (_MODEL,),
    ),
    Mutation(
        "state: a gradient from one document into another",
        "model/state.py",
        "constant = jax.lax.stop_gradient(source.recurrent)",
        "constant = source.recurrent",
        ("tests/training/test_state_passing.py::test_no_gradient_flows_from_one_document_into_another",),
    ),
    Mutation(
        "state: decoding ends a block without the block before",
        "generation/decode_step.py",
        "layer.states(before.recurrent, kv)",
        "layer.states(before.recurrent, block)",
        (_DECODE,),
    ),
    Mutation(
        "cache: keys of the first instead of the last block",
        "model/layers/transformer.py",
        "keys=keys[:, -window:]",
        "keys=keys[:, :window]",
        (_MODEL, _PARITY),
    ),
    Mutation(
        "norm: mean of absolute values instead of squares",
        "model/layers/norm.py",
        "jnp.mean(jnp.square(wide)",
        "jnp.mean(jnp.abs(wide)",
        (_MODEL, _PARITY),
    ),
    Mutation(
        "logits: scale D instead of sqrt(D)",
        "model/language_model.py",
        "/ math.sqrt(self.config.embed_dim)",
        "/ self.config.embed_dim",
        (_MODEL, _PARITY),
    ),
    Mutation(
        "loss: mean over padding, too",
        "training/step.py",
        "total = jnp.maximum(jnp.sum(batch.weights), 1)",
        "total = float(batch.weights.size)",
        ("tests/training/test_step.py",),
    ),
    Mutation(
        "optimizer: warm-up begins one step early",
        "training/optimizer.py",
        "jnp.minimum(step, config.warmup_steps) / config.warmup_steps",
        "jnp.minimum(step + 1, config.warmup_steps) / config.warmup_steps",
        ("tests/training/test_optimizer.py",),
    ),
    Mutation(
        "scores: bytes of the first token are counted",
        "evaluation/scores.py",
        "bytes=size - first,",
        "bytes=size,",
        ("tests/evaluation/test_scores.py",),
    ),
)

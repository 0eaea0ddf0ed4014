"""A minimal server without this package: reads an export and prompts (lists of ids), prints greedy continuations."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file

folder, prompts, count = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
manifest = json.loads((folder / "functions.json").read_text())
params = load_file(folder / "params.safetensors")
prefill, decode = (
    jax.jit(export.deserialize(bytearray((folder / f"{name}.stablehlo").read_bytes())).call)
    for name in ("prefill", "decode")
)
rows, size = len(prompts), manifest["tokens_per_prefill"]
state = {
    name: np.zeros((rows, *about["shape"][1:]), about["dtype"] if about["dtype"] != "bfloat16" else jax.numpy.bfloat16)
    for name, about in manifest["state"].items()
}
for start in range(0, max(map(len, prompts)), size):
    pieces = [prompt[start : start + size] for prompt in prompts]
    tokens = np.zeros((rows, size), np.int32)
    for row, piece in enumerate(pieces):
        tokens[row, : len(piece)] = piece
    lengths = np.array([len(piece) for piece in pieces], np.int32)
    state = prefill(params, state, tokens, lengths, np.full(rows, start == 0))
written = []
for _ in range(count):
    tokens = np.argmax(np.asarray(state["logits"])[:, : manifest["vocab_size"]], axis=1).astype(np.int32)
    written.append(tokens.tolist())
    state = decode(params, state, tokens)
assert not [name for name in sys.modules if name.split(".")[0] in ("block_recurrent", "flax")]
print(json.dumps(np.array(written).T.tolist()))

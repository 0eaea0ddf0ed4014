"""Measures a train step of block-recurrent-transformer-pytorch (PyPI), with flash attention and Adam.

Its feed-forward networks are GEGLU of two thirds of the width, so a step has about as many operations as ours.
"""

from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from block_recurrent_transformer_pytorch import (  # pyright: ignore[reportMissingImports]
    BlockRecurrentTransformer,
)
from turn import job, take_turns


def model(config: dict[str, Any], length: int) -> torch.nn.Module:
    layers = tuple(index % config["num_layers"] + 1 for index in config["recurrent_layers"])
    return BlockRecurrentTransformer(
        num_tokens=config["vocab_size"],
        dim=config["embed_dim"],
        depth=config["num_layers"],
        dim_head=config["head_dim"],
        heads=config["num_heads"],
        ff_mult=config["mlp_dim"] // config["embed_dim"],
        max_seq_len=length,
        block_width=config["window_length"],
        recurrent_layers=layers,
        num_state_vectors=config["num_states"],
        use_flash_attn=True,
    )


def main() -> None:
    task = job()
    rows, length = task["batch_size"], task["segment_length"]
    network = model(task["model"], length)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    tokens = torch.randint(0, task["model"]["vocab_size"], (rows, length + 1))
    caches, states = [], []

    def run() -> None:
        nonlocal caches, states
        loss, caches, states = network(tokens, return_loss=True, xl_memories=caches, states=states)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    take_turns(
        run, tokens=rows * length, torch=torch.__version__, parameters=sum(p.numel() for p in network.parameters())
    )


if __name__ == "__main__":
    main()

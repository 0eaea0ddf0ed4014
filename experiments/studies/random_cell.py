"""Exports a run with new random cells in its recurrent layers: `python -m experiments.studies.random_cell RUN OUT`.

Everything that the states are made with is drawn anew (projections, cell, gates, position embeddings, initial states);
the tokens' side stays as trained. Such states remember nothing that the model could use, so `evaluate --ablations` has
to say that they contribute nothing: this checks the check.
"""

import argparse
import dataclasses
from pathlib import Path

import jax

from block_recurrent.errors import InputError
from block_recurrent.files import resolve
from block_recurrent.model.language_model import init_params
from block_recurrent.training.saved_run import SavedRun
from block_recurrent.typing import Params


def with_random_cells(saved: SavedRun, seed: int) -> Params:
    """The run's parameters, those of its recurrent states drawn anew.

    Raises:
        InputError: the model has no recurrent layer.
    """
    fresh = init_params(saved.config.model, jax.random.key(seed))["layers"]
    layers = dict(saved.params["layers"])
    recurrent = [name for name, layer in layers.items() if "states" in layer]
    if not recurrent:
        raise InputError("the run's model has no recurrent layer")
    return {**saved.params, "layers": layers | {n: {**layers[n], "states": fresh[n]["states"]} for n in recurrent}}


def main() -> None:
    parser = argparse.ArgumentParser(description="Gives a run new random cells.")
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("out", type=Path, help="where the export goes")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    saved = SavedRun.load(resolve(arguments.run))
    changed = dataclasses.replace(saved, params=with_random_cells(saved, arguments.seed))
    changed.export(resolve(arguments.out))
    print(f"step {saved.step} with random cells written to {arguments.out}")


if __name__ == "__main__":
    main()

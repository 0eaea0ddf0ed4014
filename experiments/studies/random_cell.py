"""Exports a run with random cells in its recurrent layers: `python -m experiments.studies.random_cell RUN OUT`.

All parameters that compute the states are initialised again: projections, cell, gates, position embeddings and initial
states. The parameters of the token side stay as trained. The model cannot use such states, so `evaluate --ablations`
must report that they contribute nothing. This is a control for the ablations.
"""

import argparse
import dataclasses

import jax

from block_recurrent.errors import InputError
from block_recurrent.files import resolve
from block_recurrent.model.language_model import init_params
from block_recurrent.training.saved_run import SavedRun
from block_recurrent.typing import Params


def with_random_cells(saved: SavedRun, seed: int) -> Params:
    """Returns the run's parameters with newly initialised parameters of its recurrent states.

    Raises:
        InputError: the model has no recurrent layer.
    """
    fresh = init_params(saved.config.model, jax.random.key(seed))["layers"]
    layers = dict(saved.params["layers"])
    recurrent = [name for name, layer in layers.items() if "states" in layer]
    if not recurrent:
        raise InputError("the run's model has no recurrent layer; choose a run with ModelConfig.recurrent_layers")
    return {**saved.params, "layers": layers | {n: {**layers[n], "states": fresh[n]["states"]} for n in recurrent}}


def main() -> None:
    parser = argparse.ArgumentParser(description="Exports a run with random cells in its recurrent layers.")
    parser.add_argument("run", type=resolve, help="workdir of the run")
    parser.add_argument("out", type=resolve, help="folder of the export")
    parser.add_argument("--seed", type=int, default=1, help="of the random cells [default: %(default)s]")
    arguments = parser.parse_args()
    saved = SavedRun.load(arguments.run)
    changed = dataclasses.replace(saved, params=with_random_cells(saved, arguments.seed))
    changed.export(arguments.out, control="random cells")
    print(f"step {saved.step} with random cells written to {arguments.out}")


if __name__ == "__main__":
    main()

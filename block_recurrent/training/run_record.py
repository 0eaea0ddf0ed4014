"""`run.json`: the configuration and data of a workdir's run, checked before the run is continued or evaluated."""

import dataclasses
import json
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from etils import epath

from block_recurrent.config import MeshConfig, RunConfig, TrainConfig, fields_that_may_differ
from block_recurrent.config.stored import read_run_config
from block_recurrent.errors import InputError
from block_recurrent.files import write_whole
from block_recurrent.registry import modules_of

_FILE = "run.json"
_LIBRARIES = ("block-recurrent", "jax", "flax", "optax", "orbax-checkpoint", "tensorstore", "numpy")
# A run may continue with other values of these fields; all other fields change what its steps compute.
_FREE_TRAIN_FIELDS = {field.name for field in dataclasses.fields(TrainConfig)} - {
    *("seed", "backprop_segments", "state_passing")
}
_FREE = {
    *(f"config.train.{name}" for name in _FREE_TRAIN_FIELDS),
    *(f"config.mesh.{field.name}" for field in dataclasses.fields(MeshConfig)),
    "config.data.store",
    "config.data.eval_split",
    *(f"config.model.{name}" for name in fields_that_may_differ("resume")),
}

_DECAY = "config.optimizer.decay_steps"
_SCHEDULES_WITHOUT_END = ("rsqrt", "constant")  # they do not depend on the length of the decay


def make_record(run: RunConfig, data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns everything that determines a run's results, as JSON values.

    Args:
        run: the configuration; a decay that ends with the run is recorded as that number of steps.
        data: facts of the training data: fingerprints of content, vocabulary and schedule, and counts.
    """
    optimizer = dataclasses.replace(run.optimizer, decay_steps=run.optimizer.decay_steps or run.train.num_steps)
    config = dataclasses.asdict(dataclasses.replace(run, optimizer=optimizer))
    versions = {name: metadata.version(name) for name in _LIBRARIES} | {"python": platform.python_version()}
    # Through JSON once, so that the record compares equal to the one that is read back.
    record = {"config": config, "data": dict(data), "versions": versions}
    if modules := modules_of(run.model):
        record["modules"] = modules
    return json.loads(json.dumps(record))


def check_record(workdir: epath.Path, record: Mapping[str, Any]) -> None:
    """Compares the record of a run with the workdir's record, if there is one.

    Raises:
        InputError: the workdir holds another run; the message names the fields that differ.
    """
    path = workdir / _FILE
    if not path.exists():
        return
    # Read as a configuration, so that fields added since the run was recorded have their defaults.
    config = json.loads(json.dumps(dataclasses.asdict(read_run(workdir)[0])))
    old = dict(_leaves(_read(path) | {"config": config}))
    new = dict(_leaves(record))
    fields = {name for name in old | new if not name.startswith("versions.")} - _FREE
    # A path and a name; the fingerprints decide.
    fields = {name for name in fields if not name.endswith((".vocabulary.spec", "].corpus"))}
    if new.get("config.optimizer.schedule") in _SCHEDULES_WITHOUT_END:
        fields.discard(_DECAY)
    different = sorted(name for name in fields if old.get(name) != new.get(name))
    if different == [_DECAY]:
        raise InputError(_another_length(workdir, old, new))
    if different:
        pairs = "; ".join(f"{name}: {old.get(name)!r} there, {new.get(name)!r} asked for" for name in different[:5])
        raise InputError(f"{workdir}: holds another run. Choose a new --workdir, or the same configuration ({pairs})")


def _another_length(workdir: epath.Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    there, asked = old[_DECAY], new[_DECAY]
    return (
        f"{workdir}: the learning rate of this run ({new['config.optimizer.schedule']}) decays over {there} steps, not "
        f"{asked}. Without OptimizerConfig.decay_steps it decays over TrainConfig.num_steps = "
        f"{new['config.train.num_steps']}. Either keep the schedule of the run: --gin-param "
        f"OptimizerConfig.decay_steps={there}; or train with the other schedule in a new --workdir, from the start or "
        f"from these parameters (--init-from {workdir})"
    )


def write_record(workdir: epath.Path, record: Mapping[str, Any]) -> None:
    """Writes the record of a run into its workdir, which must exist."""
    write_whole(workdir / _FILE, json.dumps(record, indent=2) + "\n")


def has_run(workdir: epath.Path) -> bool:
    """Returns whether a folder holds a run."""
    return (workdir / _FILE).exists()


def read_run(workdir: epath.Path) -> tuple[RunConfig, dict[str, Any]]:
    """Returns the configuration and the data facts of the run in a workdir.

    Raises:
        InputError: the workdir holds no run, or its record cannot be read.
    """
    path = workdir / _FILE
    if not has_run(workdir):
        raise InputError(f"--workdir {workdir}: no run is there ({_FILE} is missing)")
    record = _read(path)
    if missing := {"config", "data"} - record.keys():
        raise InputError(f"{path}: not a record of a run: {', '.join(sorted(missing))} missing")
    return read_run_config(record["config"], path, record.get("modules")), record["data"]


def initialised_from(workdir: epath.Path) -> str | None:
    """Returns the path that was given to `--init-from` when the run began; None without one."""
    return _read(workdir / _FILE).get("init_from") if has_run(workdir) else None


def _read(path: epath.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for number, item in enumerate(value):
                yield from _leaves(item, f"{prefix}{name}[{number}].")
        else:
            yield f"{prefix}{name}", value

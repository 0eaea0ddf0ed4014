"""Models by name: `--model NAME_OR_FOLDER` is a packaged model or a folder that `export` wrote."""

import os

from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.files import resolve
from block_recurrent.interop.safetensors import CONFIG_FILE

PACKAGED = epath.Path(__file__).parent.parent / "sample_model"  # one folder for each packaged model


def packaged_models() -> list[str]:
    """Returns the names of the models that this installation carries."""
    if not PACKAGED.exists():
        return []
    return sorted(folder.name for folder in PACKAGED.iterdir() if (folder / CONFIG_FILE).exists())


def is_packaged(folder: epath.Path) -> bool:
    """Returns whether a folder is a packaged model; results are never written to it."""
    return folder.parent == PACKAGED


def model_folder(name_or_folder: os.PathLike[str] | str) -> epath.Path:
    """Returns the folder of an exported model.

    Args:
        name_or_folder: name of a packaged model, or a folder that `export` wrote, local or remote. A packaged model
            comes before a folder with its name, which can be written as `./NAME`.

    Raises:
        InputError: there is no such model.
    """
    given, names = os.fspath(name_or_folder), packaged_models()
    if given in names:
        return PACKAGED / given
    packaged = f"packaged models: {', '.join(names)}" if names else "this installation has no packaged model"
    folder = resolve(given)
    if not given or not folder.exists():
        raise InputError(
            f"--model {given}: no model has this name and no folder is there; {packaged}; otherwise name a folder that "
            "`export` wrote"
        )
    if not (folder / CONFIG_FILE).exists():
        raise InputError(
            f"--model {given}: not a folder that `export` wrote ({CONFIG_FILE} is missing); name a run with --workdir; "
            f"{packaged}"
        )
    return folder

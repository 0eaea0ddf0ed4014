"""Models by name: `--model` is a packaged model, a folder that `export` wrote, or a model on the Hugging Face hub."""

import os

from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.files import resolve
from block_recurrent.interop import hub
from block_recurrent.interop.safetensors import CONFIG_FILE

PACKAGED = epath.Path(__file__).parent.parent / "sample_model"  # one folder for each packaged model


def packaged_models() -> list[str]:
    """Returns the names of the models that this installation carries."""
    if not PACKAGED.exists():
        return []
    return sorted(folder.name for folder in PACKAGED.iterdir() if (folder / CONFIG_FILE).exists())


def is_read_only(name_or_folder: os.PathLike[str] | str, folder: epath.Path) -> bool:
    """Returns whether results must not be written to a model's folder: to the installation, or to the hub's cache.

    Args:
        name_or_folder: the name or address of the model.
        folder: its folder, from `model_folder`.
    """
    return folder.parent == PACKAGED or os.fspath(name_or_folder).startswith(hub.PREFIX)


def model_folder(name_or_folder: os.PathLike[str] | str) -> epath.Path:
    """Returns the folder of an exported model.

    Args:
        name_or_folder: name of a packaged model, a folder that `export` wrote, local or remote, or
            `hf://OWNER/NAME[@REVISION]`, which is downloaded. A packaged model comes before a folder with its name,
            which can be written as `./NAME`.

    Raises:
        InputError: there is no such model.
    """
    given, names = os.fspath(name_or_folder), packaged_models()
    if given in names:
        return PACKAGED / given
    if given.startswith(hub.PREFIX):
        return _of_the_hub(given)
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


def _of_the_hub(address: str) -> epath.Path:
    folder = hub.download(hub.HubModel.parse(address, "--model"))
    if not (folder / CONFIG_FILE).exists():
        raise InputError(f"--model {address}: not a model of this program ({CONFIG_FILE} is missing)")
    return folder

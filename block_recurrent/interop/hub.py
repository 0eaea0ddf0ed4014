"""Models on the Hugging Face hub (extra `hub`): exports as repositories, addressed as `hf://OWNER/NAME[@REVISION]`."""

import dataclasses
import importlib
import re
from typing import Any

from etils import epath

from block_recurrent.errors import InputError, first_line
from block_recurrent.interop.safetensors import CONFIG_FILE, PARAMS_FILE, VOCABULARY_FILE

PREFIX = "hf://"
# The files of an export that this package reads. Nothing else is downloaded, and none of them is run.
FILES = (CONFIG_FILE, PARAMS_FILE, VOCABULARY_FILE, "README.md", "metrics.jsonl", "evaluation/*")
_ADDRESS = re.compile(r"(?:hf://)?(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


@dataclasses.dataclass(frozen=True)
class HubModel:
    """A repository of the hub.

    Attributes:
        name: `OWNER/NAME`.
        revision: branch, tag or commit; None for the newest version of the main branch.
    """

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, address: str, where: str) -> "HubModel":
        """Reads an address.

        Args:
            address: `OWNER/NAME`, with `hf://` before it and `@REVISION` after it or without.
            where: the option, for messages.

        Raises:
            InputError: it is no address.
        """
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise InputError(f"{where} {address}: must be OWNER/NAME or OWNER/NAME@REVISION of the Hugging Face hub")
        return cls(match["name"], match["revision"])


def download(model: HubModel) -> epath.Path:
    """Downloads an export into the cache of `huggingface_hub`, or finds it there; returns its folder.

    The folder is shared by all programs of this user: nothing may be written to it.

    Raises:
        ImportError: the extra `hub` is not installed.
        InputError: the repository or revision is not there, or the hub cannot be reached.
    """
    hub = _library()
    try:
        folder = hub.snapshot_download(model.name, revision=model.revision, allow_patterns=list(FILES))
    except Exception as error:  # classes of the library, of its HTTP client and of the network
        at = f"@{model.revision}" if model.revision else ""
        raise InputError(
            f"--model {PREFIX}{model.name}{at}: cannot be downloaded: {first_line(error)} (a private model needs "
            "`hf auth login` or HF_TOKEN)"
        ) from error
    return epath.Path(folder)


def check_upload(model: HubModel) -> None:
    """Checks, before long work begins, that an upload is possible: the extra is installed and a user is logged in.

    Raises:
        ImportError: the extra `hub` is not installed.
        InputError: no user is logged in, or a revision is given.
    """
    if model.revision is not None:
        raise InputError(f"--push-to {model.name}@{model.revision}: write OWNER/NAME; the main branch is updated")
    try:
        _library().HfApi().whoami()
    except ImportError:
        raise
    except Exception as error:
        raise InputError(
            f"--push-to {model.name}: the Hugging Face hub refuses: {first_line(error)}; log in with `hf auth login`, "
            "or set HF_TOKEN"
        ) from error


def upload(folder: epath.Path, model: HubModel, *, private: bool) -> str:
    """Uploads an export as one commit; creates the repository if it does not exist.

    Args:
        folder: a local folder that `export` wrote.
        model: the repository.
        private: whether a new repository is visible to its owner only.

    Returns:
        The address of the commit.

    Raises:
        ImportError: the extra `hub` is not installed.
        InputError: the upload failed; the folder is kept.
    """
    api = _library().HfApi()
    try:
        api.create_repo(model.name, repo_type="model", private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=model.name,
            folder_path=str(folder),
            repo_type="model",
            commit_message="Upload by block_recurrent export",
        )
    except Exception as error:
        raise InputError(
            f"--push-to {model.name}: the upload failed: {first_line(error)}; {folder} is complete and kept: "
            f"`hf upload {model.name} {folder}` tries again"
        ) from error
    return str(commit.commit_url)


def _library() -> Any:
    return importlib.import_module("huggingface_hub")

"""The folder that `prepare` writes: one writer at a time, and an unfinished store is never taken for a finished one."""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from block_recurrent import files
from block_recurrent.data.store import metadata
from block_recurrent.data.store.metadata import StoreMetadata
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.errors import InputError

_LOCK = ".prepare.lock"
_RULES = f"settings {metadata.RULES_VERSION}"


class StoreOutput:
    """The folder of the stores of a source's splits.

    Args:
        root: local or remote. Remote stores are built in the local temporary folder and then uploaded, `store.json`
            last, because object stores can neither append to nor rename objects.
    """

    def __init__(self, root: str):
        self.root = epath.Path(root)
        self._remote = files.is_remote(self.root)
        if self._remote:
            name = hashlib.sha256(self.root.as_posix().encode()).hexdigest()[:16]
            self._work = Path(tempfile.gettempdir()) / f"block_recurrent-{name}"
        else:
            self._work = Path(root)

    def final_folder(self, split: str) -> epath.Path:
        """Returns the folder of a split's finished store."""
        return self.root / split

    def work_folder(self, split: str) -> Path:
        """Returns the local folder in which a split's store is built."""
        return self._work / f".{split}{files.PARTIAL}"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder against other preparations. The lock ends with the process.

        Raises:
            InputError: the folder is not writable, or another process is preparing it.
        """
        with contextlib.ExitStack() as stack:
            created = [folder for folder in (self._work, *self._work.parents) if not folder.exists()]
            try:
                self._work.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(files.lock(self._work / _LOCK, f"process {os.getpid()}"))
                if not os.fstat(file.fileno()).st_nlink:  # removed by its owner between opening and locking
                    raise files.LockedError
            except files.LockedError:
                raise InputError(f"{self.root}: another process is preparing this folder") from None
            except OSError as error:
                raise InputError(f"cannot write to {self._work}: {error.strerror}") from None
            try:
                yield
            finally:
                (self._work / _LOCK).unlink(missing_ok=True)
                _remove_empty(created)

    def find_finished(self, split: str, identity: Mapping[str, Any]) -> StoreMetadata | None:
        """Returns the metadata of a split's finished store; None if there is none yet.

        A store of other rules for the same input is accepted, so that an upgrade does not force a new preparation.

        Args:
            split: the split.
            identity: identity of the preparation, see `metadata.identity`.

        Raises:
            InputError: the folder holds something else, which is never overwritten.
        """
        path = self.final_folder(split)
        if not path.exists() or self._half_uploaded(split):
            return None
        found = TokenStore.open(path).metadata
        changes = _changes(found.identity, identity)
        if changes:
            raise InputError(f"{path} holds another store ({changes}): remove it or choose another folder")
        return found

    def rename(self, split: str, found: StoreMetadata, corpus: str) -> StoreMetadata:
        """Writes another name of the corpus into a finished store, and returns its metadata. Nothing else changes."""
        renamed = dataclasses.replace(found, corpus=corpus)
        files.write_whole(self.final_folder(split) / metadata.FILE_NAME, renamed.to_json())
        return renamed

    def _half_uploaded(self, split: str) -> bool:
        """Returns whether an upload was interrupted: the store is whole in the local folder, not in the remote one."""
        built = (self.work_folder(split) / metadata.FILE_NAME).exists()
        return self._remote and built and not (self.final_folder(split) / metadata.FILE_NAME).exists()

    def find_built(self, split: str, identity: Mapping[str, Any]) -> StoreMetadata | None:
        """Returns the metadata of a store that an interrupted run built but did not publish; None if there is none."""
        try:
            found = TokenStore.open(self.work_folder(split)).metadata
        except InputError:
            return None
        return found if found.identity == identity else None

    def discard(self, split: str) -> None:
        """Removes a split's work folder."""
        shutil.rmtree(self.work_folder(split), ignore_errors=True)

    def publish(self, split: str) -> None:
        """Moves a split's store from its work folder to its final folder."""
        work, final = self.work_folder(split), self.final_folder(split)
        if not self._remote:
            os.rename(work, self._work / split)
            return
        names = sorted(path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file())
        for name in [*(name for name in names if name != metadata.FILE_NAME), metadata.FILE_NAME]:
            (final / name).parent.mkdir(parents=True, exist_ok=True)
            epath.Path(work / name).copy(final / name, overwrite=True)
        shutil.rmtree(work)


def _changes(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Returns the differences between identities; empty if only the versions of the rules differ, or nothing."""
    there, now = ({**{f"settings {k}": v for k, v in i["settings"].items()}, **i} for i in (found, wanted))
    keys = sorted((there.keys() | now.keys()) - {"settings"})
    different = [key for key in keys if there.get(key) != now.get(key)]
    if different in ([], [_RULES]):
        return ""
    return "; ".join(f"{key.replace('_', ' ')} {there.get(key, 1)!r}, now {now.get(key)!r}" for key in different)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Removes folders, the innermost first, up to the first that is not empty."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()

"""A lock in a bucket: an object that only one process can create, and that its holder writes again and again.

Google Cloud Storage creates, replaces or deletes an object only if it has the generation that the caller names; 0 means
that it does not exist. A process that dies leaves its object. Another process takes the lock when the object has not
been written for `LEASE_SECONDS`, or at once if the holder was a process of this machine that no longer runs.
"""

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from block_recurrent.errors import first_line
from block_recurrent.files import LockedError

LEASE_SECONDS = 120.0
_SECONDS_BETWEEN_WRITES = 30.0
_SECONDS_BETWEEN_READS = 5.0


class ChangedError(Exception):
    """The object has another generation than the expected one."""


class ConditionalObject(Protocol):
    """One object of a bucket, with operations that depend on its generation."""

    def read(self) -> tuple[bytes, int] | None:
        """Returns content and generation; None if the object does not exist."""
        ...

    def write(self, content: bytes, generation: int) -> int:
        """Replaces the object of this generation, or creates it for 0; returns the new generation.

        Raises:
            ChangedError: the object has another generation.
        """
        ...

    def delete(self, generation: int) -> None:
        """Deletes the object of this generation.

        Raises:
            ChangedError: the object has another generation.
        """
        ...


class CloudObject:
    """An object of Google Cloud Storage.

    Args:
        url: `gs://BUCKET/NAME`.

    Its methods raise `OSError` if the bucket cannot be reached or refuses the request.

    Raises:
        ImportError: google-cloud-storage, of the extra `gcs`, is not installed.
    """

    def __init__(self, url: str):
        from google.api_core import exceptions
        from google.cloud import storage

        bucket, _, self._name = url.removeprefix("gs://").partition("/")
        self._errors, self._bucket = exceptions, storage.Client().bucket(bucket)

    def read(self) -> tuple[bytes, int] | None:
        """As in `ConditionalObject`."""
        with self._own_errors():
            while (blob := self._bucket.get_blob(self._name)) is not None:
                with contextlib.suppress(self._errors.NotFound):  # replaced since: look again
                    return blob.download_as_bytes(), int(blob.generation or 0)
        return None

    def write(self, content: bytes, generation: int) -> int:
        """As in `ConditionalObject`."""
        blob = self._bucket.blob(self._name)  # a used one keeps its generation
        with self._own_errors():
            blob.upload_from_string(content, "application/json", if_generation_match=generation)
        return int(blob.generation or 0)

    def delete(self, generation: int) -> None:
        """As in `ConditionalObject`."""
        with self._own_errors():
            self._bucket.blob(self._name).delete(if_generation_match=generation)

    @contextlib.contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except (self._errors.PreconditionFailed, self._errors.NotFound) as error:
            raise ChangedError(first_line(error)) from None
        except self._errors.GoogleAPIError as error:
            raise OSError(first_line(error)) from None


@contextlib.contextmanager
def hold_object(
    item: ConditionalObject,
    note: str,
    *,
    notify: Callable[[str], None],
    lease_seconds: float = LEASE_SECONDS,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[None]:
    """Holds the lock that an object is, and deletes the object when the context ends.

    Args:
        item: the object.
        note: description of this process; the message of `LockedError` in other processes.
        notify: called with one sentence when this waits, and when another process has taken the lock.
        lease_seconds: seconds without a write after which the lock of a dead process is taken.
        sleep: waits between two looks at the object.

    Raises:
        LockedError: a live process holds the lock.
    """
    content = json.dumps({"note": note, "host": platform.node(), "process": os.getpid()}).encode()
    generation = _acquire(item, content, notify, lease_seconds, sleep)
    with _Writer(item, content, generation, notify):
        yield


def _acquire(
    item: ConditionalObject,
    content: bytes,
    notify: Callable[[str], None],
    lease_seconds: float,
    sleep: Callable[[float], object],
) -> int:
    """Returns the generation of the object that this process has written."""
    first: int | None = None
    waited = 0.0
    while True:
        found = item.read()
        generation = 0 if found is None else found[1]
        dead = found is not None and _ended_here(found[0])
        if not generation or dead or (generation == first and waited >= lease_seconds):
            with contextlib.suppress(ChangedError):  # another process was faster
                return item.write(content, generation)
            found = item.read()
            generation = 0 if found is None else found[1]
        if first is None and found is not None:
            first = generation
            notify(f"the workdir has the lock of {_note(found[0])}; waiting {lease_seconds:g} s for a sign of its life")
        elif found is not None and generation != first:
            raise LockedError(_note(found[0]))
        sleep(_SECONDS_BETWEEN_READS)
        waited += _SECONDS_BETWEEN_READS


def _note(content: bytes) -> str:
    try:
        return str(json.loads(content)["note"])
    except (ValueError, KeyError, TypeError):
        return "an unknown process"


def _ended_here(content: bytes) -> bool:
    """Returns whether the holder was a process of this machine that no longer runs."""
    try:
        holder = json.loads(content)
        if holder["host"] != platform.node():
            return False
        os.kill(int(holder["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return False


class _Writer:
    """Writes the object again and again in a background thread, and deletes it at the end."""

    def __init__(self, item: ConditionalObject, content: bytes, generation: int, notify: Callable[[str], None]):
        self._item, self._content, self._generation, self._notify = item, content, generation, notify
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bucket lock", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_WRITES):
            try:
                self._generation = self._item.write(self._content, self._generation)
            except ChangedError:
                self._notify("another process has taken the lock of the workdir; end one of the two runs")
                self._generation = 0
                return
            except Exception:  # the network is away; the next write may succeed
                continue

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._generation:
            with contextlib.suppress(Exception):  # otherwise the lease ends
                self._item.delete(self._generation)

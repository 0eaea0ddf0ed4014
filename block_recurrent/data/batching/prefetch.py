"""Prefetching in a background thread."""

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
_END = object()


class Prefetcher(Generic[Item]):
    """An iterator that reads up to `depth` items ahead. An error in the thread is raised in place of its item.

    Args:
        items: iterated over in the background.
        depth: maximum number of items in the queue, at least 1.
    """

    def __init__(self, items: Iterator[Item], depth: int = 2):
        if depth < 1:
            raise ValueError(f"depth = {depth}: must be at least 1")
        self._queue: queue.Queue[tuple[object, BaseException | None]] = queue.Queue(depth)
        self._closed = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, args=(items,), name="prefetch", daemon=True)
        self._thread.start()

    def _run(self, items: Iterator[Item]) -> None:
        try:
            for item in items:
                self._queue.put((item, None))
                if self._closed.is_set():
                    return
        except BaseException as error:
            self._queue.put((_END, error))
        else:
            self._queue.put((_END, None))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        if self._ended:
            raise StopIteration
        item, error = self._queue.get()
        if item is _END:
            self.close()
            if error is not None:
                raise error
            raise StopIteration
        return item  # pyright: ignore[reportReturnType]  # the queue also carries the end mark

    def close(self) -> None:
        """Ends the thread after the item that it is reading."""
        self._ended = True
        self._closed.set()
        while self._thread.is_alive():
            try:  # a full queue would block the thread
                self._queue.get(timeout=0.01)
            except queue.Empty:
                continue
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

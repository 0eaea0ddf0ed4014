"""Requests to end a command: SIGINT, SIGTERM, and a reader of standard output that is gone.

A request raises `Interrupted` in the main thread. The command's context managers save and clean up, one line says what
is kept, and the process ends without the interpreter's shutdown: XLA's threads may still run, and have crashed in it.
During an import it waits until the import has ended: jaxlib crashes when its initialisation is stopped. It also waits
until an event loop has ended, in which orbax reads a checkpoint: the loop would log the exception.
"""

import _thread
import contextlib
import dataclasses
import functools
import io
import os
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType

from block_recurrent.errors import InputError

EX_TEMPFAIL = 75
_GRACE_SECONDS = 5.0  # a compilation does not return to Python for minutes
_SECONDS_TO_SAVE = 60.0  # after a request, if there is something to save
_FLUSH_SECONDS = 1.0
_SECONDS_BETWEEN_CHECKS = 0.2
_FORCED = 3  # this many requests end the process at once


class Interrupted(BaseException):
    """The command was asked to end. It is no `Exception`, so that handlers of errors do not catch it."""


@dataclasses.dataclass(frozen=True)
class _Kept:
    text: str | Callable[[], str] = "nothing was written"
    resumable: bool = False
    saves_itself: bool = False


class _Requests:
    """The requests of this process; global, like the signals."""

    def __init__(self):
        self.kept = _Kept()
        self.count = 0
        self.pipe_closed = False
        self.raised = threading.Event()
        self.number: int = signal.SIGINT
        self.exception: Callable[[], Interrupted | None] | None = None  # None before the first request
        self.raised_at = 0.0
        self.repeated = 0  # requests that the watching thread has made itself

    def new(self, number: int) -> Interrupted:
        interrupted = Interrupted(number)
        self._note(number, weakref.ref(interrupted))
        return interrupted

    def postpone(self, number: int) -> None:
        """Notes a request that cannot be raised now; the watching thread makes it again."""
        self._note(number, lambda: None)

    def _note(self, number: int, exception: Callable[[], Interrupted | None]) -> None:
        if self.exception is None:
            self.raised_at = time.monotonic()
        self.number, self.exception = number, exception
        self.raised.set()

    def exit_code(self, number: int) -> int:
        if self.pipe_closed:
            return 128 + signal.SIGPIPE
        if number == signal.SIGTERM and self.kept.resumable:
            return EX_TEMPFAIL
        return 128 + number

    def line(self, number: int, kept: str) -> str:
        reason = "nothing reads standard output" if self.pipe_closed else signal.Signals(number).name
        return f"stopped ({reason}): {kept}\n"


_requests = _Requests()


def keeps(text: str | Callable[[], str], *, resumable: bool = False, saves_itself: bool = False) -> None:
    """Sets what is kept if the command is asked to end from here on.

    Args:
        text: part of a line; a function is called when the command has cleaned up.
        resumable: whether the same command continues; SIGTERM then ends with exit code 75.
        saves_itself: the command handles the first request itself, however long that takes.
    """
    _requests.kept = _Kept(text, resumable, saves_itself)


def exit_code(number: int) -> int:
    """Returns the exit code after a signal: 141 if the reader of standard output is gone, else that of the signal."""
    return _requests.exit_code(number)


def report(number: int, kept: str | None = None) -> None:
    """Writes one line about the signal and what is kept to standard error.

    Args:
        number: the signal.
        kept: what is kept; None means what the command has set by `keeps`.
    """
    text = _requests.kept.text if kept is None else kept
    try:
        text = text if isinstance(text, str) else text()
    except Exception:  # the line must be written
        text = "what was saved before is kept"
    with contextlib.suppress(OSError):
        os.write(2, _requests.line(number, text).encode("utf-8", "replace"))


def run(command: Callable[[], None]) -> None:
    """Runs a command and ends the process if it was asked to end.

    Args:
        command: the whole command line.
    """
    _replace_streams()
    handled = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN  # ignored in the background of a shell script

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and not handled and not _requests.pipe_closed:
            return
        if _must_go_on(frame):
            _requests.postpone(number)
            return
        raise _requests.new(number)  # no variable: a frame of its own traceback would keep the exception alive

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    sys.unraisablehook = functools.partial(_unraisable, sys.unraisablehook)
    try:
        with _watched():
            try:
                command()
            finally:
                sys.stdout.flush()
        _ignore_signals()
    except Interrupted as interrupted:
        _ignore_signals()
        (number,) = interrupted.args
        _end(number)
    except SystemExit as ended:
        _ignore_signals()
        if _requests.pipe_closed:
            os._exit(ended.code if isinstance(ended.code, int) and ended.code else exit_code(signal.SIGINT))
        raise


def _must_go_on(frame: FrameType | None) -> bool:
    """Returns whether a frame belongs to an import or an event loop."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        if str(frame.f_globals.get("__name__")).startswith("asyncio."):
            return True
        frame = frame.f_back
    return False


def _unraisable(show: Callable[["sys.UnraisableHookArgs"], object], unraisable: "sys.UnraisableHookArgs") -> None:
    """Drops a request that arrived in a destructor or a callback of the garbage collector; it is raised again."""
    if not isinstance(unraisable.exc_value, Interrupted):
        show(unraisable)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _flush() -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()


def _end(number: int) -> None:
    flushing = threading.Thread(target=_flush, daemon=True)  # a full pipe would block for ever
    flushing.start()
    flushing.join(_FLUSH_SECONDS)
    report(number)
    os._exit(exit_code(number))


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Watches for signals from a thread, which also sees those that arrive during a long call of a library.

    Python runs its handlers between two instructions of the main thread; a compilation may take minutes.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="interruption", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        writer.close()  # ends the thread


def _watch(reader: socket.socket) -> None:
    reader.settimeout(_SECONDS_BETWEEN_CHECKS)
    with reader:
        while True:
            try:
                received = reader.recv(1)
            except TimeoutError:
                _raise_again_if_swallowed()
                continue
            if not received:
                return
            _received(received[0])


def _raise_again_if_swallowed() -> None:
    """Raises the request again if a library has caught the exception, and ends a process that does not end itself."""
    if _requests.exception is None:
        return
    allowed = _SECONDS_TO_SAVE if _requests.kept.resumable else _GRACE_SECONDS
    if time.monotonic() - _requests.raised_at > allowed:
        report(_requests.number)
        os._exit(exit_code(_requests.number))
    if _requests.exception() is None:  # caught: nothing refers to it any more
        _requests.repeated += 1
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, _requests.number)  # also wakes a call that waits


def _received(number: int) -> None:
    if number not in (signal.SIGINT, signal.SIGTERM):
        return
    if _requests.repeated:
        _requests.repeated -= 1
        return
    _requests.count += 1
    if _requests.kept.saves_itself and _requests.count == 1:
        return
    if _requests.count >= _FORCED or not _requests.raised.wait(_GRACE_SECONDS):
        report(number)
        os._exit(exit_code(number))


class _Stream(io.RawIOBase):
    """A standard stream. Once nothing reads it, what is written is dropped.

    Args:
        descriptor: 1 or 2.
        closed: called when nothing reads the stream any more.
    """

    def __init__(self, descriptor: int, closed: Callable[[], None]):
        self._descriptor, self._closed = descriptor, closed

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data, /) -> int:
        try:
            return os.write(self._descriptor, data)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._descriptor)
            self._closed()
            return len(data)
        except OSError as error:
            name = {1: "standard output", 2: "standard error"}[self._descriptor]
            raise InputError(f"{name}: cannot be written: {error.strerror}") from None


def _reader_is_gone() -> None:
    _requests.pipe_closed = True
    _thread.interrupt_main()  # also from a thread: the handler of SIGINT runs in the main thread


def _replace_streams() -> None:
    for name, descriptor, closed in (("stdout", 1, _reader_is_gone), ("stderr", 2, lambda: None)):
        old = getattr(sys, name)
        if old is None:
            continue
        settings = {"encoding": old.encoding, "errors": old.errors, "line_buffering": old.line_buffering}
        buffer = io.BufferedWriter(_Stream(descriptor, closed))
        setattr(sys, name, io.TextIOWrapper(buffer, **settings, write_through=old.write_through))

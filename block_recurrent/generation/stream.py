"""The text of one continuation, piece by piece."""

from collections.abc import Iterator

from block_recurrent.generation.completion import Continuation, ContinuationWriter
from block_recurrent.generation.decode_state import DecodeState


class Stream:
    """The text of one continuation as it is sampled. Iterate over it once.

    Args:
        state: the state before the continuation.
        writer: the writer of the continuation.
        pieces: yields the new text of each row and the state after it; there is one row.

    Attributes:
        state: the state after the text that was yielded so far.
    """

    def __init__(self, state: DecodeState, writer: ContinuationWriter, pieces: Iterator[tuple[list[str], DecodeState]]):
        self.state = state
        self._writer, self._pieces = writer, pieces

    def __iter__(self) -> Iterator[str]:
        for shown, state in self._pieces:
            self.state = state
            yield shown[0]

    def finish(self) -> Continuation:
        """Returns the continuation; call it after iterating."""
        return self._writer.finish()

"""The texts of one command: a text that cannot be answered has an error, and the others are answered."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import typer

from block_recurrent.cli.console import line
from block_recurrent.cli.options import STDERR
from block_recurrent.errors import InputError

Result = TypeVar("Result")


class Batch:
    """Texts in the order of the command line.

    Args:
        name: noun for one text, such as `prompt`; the first field of its records.
        texts: each a text, or the error of a line without a text.
        check: called with each text; raises the `InputError` of a text that cannot be answered.
        alone: True for a single text outside a file of JSON lines; its error ends the command.

    Raises:
        InputError: the single text cannot be answered.
    """

    def __init__(
        self, name: str, texts: Sequence[str | InputError], check: Callable[[str], object], *, alone: bool = False
    ):
        self._name = name
        self.texts = [self._checked(text, check, alone) for text in texts]
        self._numbers = [number for number, text in enumerate(self.texts) if isinstance(text, str)]

    def _checked(self, text: str | InputError, check: Callable[[str], object], alone: bool) -> str | InputError:
        if isinstance(text, InputError):
            return text
        try:
            check(text)
        except InputError as error:
            if alone:
                raise
            return InputError(re.sub(f"^{self._name}( 0)?: ", "", str(error)))  # the record has the index of the text
        return text

    @property
    def answerable(self) -> list[str]:
        """The texts without an error."""
        return [text for text in self.texts if isinstance(text, str)]

    def answers(
        self, results: Iterable[Result], position: Callable[[Result], int]
    ) -> Iterator[tuple[int, Result | InputError]]:
        """Yields the results and the errors with the index of their text, in order.

        Args:
            results: one or more for each text of `answerable`, in order.
            position: returns the index in `answerable` of a result's text.
        """
        done = 0
        for result in results:
            number = self._numbers[position(result)]
            yield from self._errors(done, number)
            yield number, result
            done = number + 1
        yield from self._errors(done, len(self.texts))

    def _errors(self, first: int, stop: int) -> Iterator[tuple[int, InputError]]:
        for number in range(first, stop):
            error = self.texts[number]
            if isinstance(error, InputError):
                yield number, error

    def record(self, number: int, error: InputError) -> dict[str, Any]:
        """Returns the record of a text that cannot be answered, for JSON lines."""
        return {self._name: number, "error": str(error)}

    def show(self, number: int, error: InputError) -> None:
        """Prints the error of a text to standard error."""
        line(STDERR, f"error: {self._name} {number}: {error}")

    def end(self) -> None:
        """Ends the command with exit code 1 if a text has an error."""
        if failed := len(self.texts) - len(self._numbers):
            line(STDERR, f"{failed:,} of {len(self.texts):,} {self._name}s could not be answered")
            raise typer.Exit(1)

"""What the model has written behind a prompt, while it comes and when it is whole."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from block_recurrent.data.vocabulary import Vocabulary
from block_recurrent.generation.stop_strings import StopStrings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continuation:
    """One sample.

    Attributes:
        prompt: number of the prompt, from 0.
        sample: number of the sample of that prompt, from 0.
        text: what was written; without the stop string.
        tokens: the ids, those of the stop string included.
        nats: of each token, minus the model's log-probability before any filter (temperature 1, whole table).
        finish_reason: `length`, or `stop` when a stop string appeared.
    """

    prompt: int
    sample: int
    text: str
    tokens: tuple[int, ...]
    nats: tuple[float, ...]
    finish_reason: Literal["length", "stop"]

    @property
    def log_probability(self) -> float:
        """Of all tokens together, in nats."""
        return -sum(self.nats)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self) | {"log_probability": self.log_probability}


class ContinuationWriter:
    """A continuation that is being written.

    Args:
        prompt: see `Continuation`.
        sample: see `Continuation`.
        vocabulary: turns ids into text.
        context: the last ids that the model read before.
        num_tokens: how many to write at most.
        stop: strings that end it.
    """

    def __init__(
        self,
        *,
        prompt: int,
        sample: int,
        vocabulary: Vocabulary,
        context: Sequence[int],
        num_tokens: int,
        stop: Sequence[str],
    ):
        self.sample = sample
        self._prompt = prompt
        self._num_tokens = num_tokens
        self._detokenizer = vocabulary.detokenizer(context)
        self._stop = StopStrings(stop)
        self._pieces: list[str] = []
        self._tokens: list[int] = []
        self._nats: list[float] = []
        self._stopped = False

    @property
    def remaining(self) -> int:
        """Tokens that it still wants."""
        return 0 if self._stopped else self._num_tokens - len(self._tokens)

    def take(self, tokens: Sequence[int], nats: Sequence[float]) -> tuple[int, str]:
        """Takes tokens until it is whole; returns how many it took, and the text that is certain by now."""
        shown, taken = "", 0
        for token, cost in zip(tokens, nats, strict=True):
            taken += 1
            self._tokens.append(int(token))
            self._nats.append(float(cost))
            piece, self._stopped = self._stop.push(self._detokenizer.push(int(token)))
            shown += piece
            if self._stopped:
                break
        if not self.remaining and not self._stopped:
            shown += self._end()
        self._pieces.append(shown)
        return taken, shown

    def _end(self) -> str:
        shown, self._stopped = self._stop.push(self._detokenizer.flush())
        return shown if self._stopped else shown + self._stop.flush()

    def finish(self) -> Continuation:
        """The whole."""
        return Continuation(
            prompt=self._prompt,
            sample=self.sample,
            text="".join(self._pieces),
            tokens=tuple(self._tokens),
            nats=tuple(self._nats),
            finish_reason="stop" if self._stopped else "length",
        )

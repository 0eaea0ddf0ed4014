"""Continuations of a prompt, and the writers that build them token by token."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from block_recurrent.data.vocabulary import Vocabulary
from block_recurrent.generation.sampling import Sampling
from block_recurrent.generation.stop_strings import StopStrings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continuation:
    """One sampled continuation of a prompt.

    Attributes:
        prompt: index of the prompt, from 0.
        sample: index of the sample of that prompt, from 0.
        text: the text after the prompt, without the stop string.
        tokens: ids of the sampled tokens, those of the stop string included.
        nats: loss of each token: minus the model's log-probability before any filter (temperature 1, whole table).
        finish_reason: `length`, or `stop` if a stop string appeared.
    """

    prompt: int
    sample: int
    text: str
    tokens: tuple[int, ...]
    nats: tuple[float, ...]
    finish_reason: Literal["length", "stop"]

    @property
    def log_probability(self) -> float:
        """Log-probability of all tokens, in nats."""
        return -sum(self.nats)

    def as_dict(self) -> dict[str, Any]:
        """Returns all fields and the log-probability, for JSON."""
        return dataclasses.asdict(self) | {"log_probability": self.log_probability}


class ContinuationWriter:
    """Builds a continuation from tokens as they are sampled.

    Args:
        prompt: index of the prompt.
        sample: index of the sample.
        vocabulary: turns ids into text.
        context: the last ids before the continuation.
        num_tokens: the largest number of tokens.
        stop: the stop strings.
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
        self._losses: list[float] = []
        self._stopped = False

    @property
    def remaining(self) -> int:
        """Number of tokens that the continuation can still take; 0 after a stop string."""
        return 0 if self._stopped else self._num_tokens - len(self._tokens)

    def take(self, tokens: Sequence[int], losses: Sequence[float]) -> tuple[int, str]:
        """Appends tokens up to the first stop string.

        Args:
            tokens: ids, at most `remaining`.
            losses: the loss of each, in nats.

        Returns:
            The number of tokens appended, and the text that is final now and was not before.
        """
        shown, taken = "", 0
        for token, loss in zip(tokens, losses, strict=True):
            taken += 1
            self._tokens.append(int(token))
            self._losses.append(float(loss))
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
        """Returns the continuation."""
        return Continuation(
            prompt=self._prompt,
            sample=self.sample,
            text="".join(self._pieces),
            tokens=tuple(self._tokens),
            nats=tuple(self._losses),
            finish_reason="stop" if self._stopped else "length",
        )


@dataclasses.dataclass(frozen=True)
class SampleSettings:
    """Settings that are the same for every continuation of one call.

    Attributes:
        num_tokens: the largest number of tokens in a continuation.
        sampling: temperature and filters.
        seed: seed of the random numbers.
        num_samples: number of continuations of each prompt.
        stop: strings that end a continuation.
    """

    num_tokens: int
    sampling: Sampling
    seed: int
    num_samples: int
    stop: tuple[str, ...]

    def writer(self, vocabulary: Vocabulary, prompt: int, sample: int, context: Sequence[int]) -> ContinuationWriter:
        """Returns the writer of an empty continuation."""
        return ContinuationWriter(
            prompt=prompt,
            sample=sample,
            vocabulary=vocabulary,
            context=context,
            num_tokens=self.num_tokens,
            stop=self.stop,
        )

"""Text in, text out: reading prompts, writing continuations and scoring texts with the recurrent state."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from block_recurrent.config import ModelConfig
from block_recurrent.data.vocabulary import Vocabulary
from block_recurrent.errors import InputError
from block_recurrent.generation import decode
from block_recurrent.generation.completion import Continuation, ContinuationWriter
from block_recurrent.generation.decode import DecodeState
from block_recurrent.generation.sampling import Sampling, row_keys
from block_recurrent.generation.sampling_loop import decode_tokens
from block_recurrent.generation.scoring import Score, TextToScore, score_rows
from block_recurrent.generation.state_file import ModelIdentity, check_room, load_state, save_state
from block_recurrent.training.saved_run import SavedRun
from block_recurrent.typing import Params

TOKENS_PER_CALL = 32  # of the decoding loop: what is shown at once

_init = jax.jit(decode.init, static_argnums=(0, 2), static_argnames="segment_length")
_read = jax.jit(decode.read, static_argnums=0)
_decode = jax.jit(decode_tokens, static_argnums=(0, 1, 2, 3))


class Generator:
    """A model with its vocabulary, ready to read and write.

    A `DecodeState` holds everything that was read: `read` returns one, `generate` and `score` go on from one, and a
    file keeps one. It has one row for each prompt; a state of one row serves any number of prompts.

    Args:
        config: the model.
        params: its parameters.
        vocabulary: what it was trained with.
        segment_length: tokens that are read at once; a multiple of the window. Without a window it is the length that
            the model was trained on, which prompt and continuation together may not exceed.
        batch_size: rows that are computed side by side.

    Raises:
        InputError: an argument has a value that is not allowed.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        vocabulary: Vocabulary,
        *,
        segment_length: int,
        batch_size: int = 8,
    ):
        if segment_length < 1 or segment_length % (config.window_length or 1):
            raise InputError(
                f"segment_length = {segment_length}: must be a multiple of the window, {config.window_length}"
            )
        if batch_size < 1:
            raise InputError(f"batch_size = {batch_size}: must be at least 1")
        self.config = config
        self.params = params
        self.vocabulary = vocabulary
        self.segment_length = segment_length
        self.batch_size = batch_size

    @classmethod
    def of_run(cls, run: SavedRun, *, batch_size: int = 8) -> "Generator":
        """Of a training run's newest checkpoint.

        Raises:
            InputError: its vocabulary cannot be read any more.
        """
        length = run.config.data.segment_length
        return cls(run.config.model, run.params, run.vocabulary(), segment_length=length, batch_size=batch_size)

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text, (n,) int32. What the vocabulary lacks becomes its unknown id, as in training."""
        return np.asarray(self.vocabulary.encode(text), np.int32)

    def unknown_tokens(self, text: str) -> int:
        """How many ids of a text are the unknown id."""
        return int(np.sum(self.encode(text) == self.vocabulary.unknown_id))

    def start(self, rows: int = 1) -> DecodeState:
        """The state at the start of a document, in which nothing can be drawn yet."""
        return _init(self.config, self.params, rows, segment_length=self.segment_length)

    def read(
        self,
        prompts: Sequence[str],
        *,
        state: DecodeState | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> DecodeState:
        """Reads a prompt in each row.

        Args:
            prompts: texts; an empty one leaves its row as it is.
            state: where to go on from, one row or as many as prompts; None starts documents.
            progress: called with (tokens done, tokens in all) of the longest prompt.

        Raises:
            InputError: without a window, a prompt is longer than the room that is left.
        """
        return self._read([self.encode(prompt) for prompt in prompts], self._rows(state, len(prompts)), progress)

    def _rows(self, state: DecodeState | None, rows: int) -> DecodeState:
        state = self.start() if state is None else state
        have = len(state.filled)
        if have not in (1, rows):
            raise InputError(f"state of {have} rows: cannot serve {rows} prompts; it needs 1 row or {rows}")
        return _take_rows(state, np.zeros(rows, int)) if have == 1 else state

    def _read(self, prompts: list[np.ndarray], state: DecodeState, progress: Callable[[int, int], None]) -> DecodeState:
        done, lengths = np.zeros(len(prompts), int), np.array([len(prompt) for prompt in prompts])
        filled, size = np.asarray(state.filled), self.segment_length
        self._check_room(filled, lengths, 0)
        while (done < lengths).any():
            # Whole segments first: they run as in training. What is left of every row is then read block by block.
            whole = (filled == 0) & (lengths - done >= size)
            counts = whole * size if whole.any() else np.minimum(lengths - done, size - filled)
            tokens = np.zeros((len(prompts), size), np.int32)
            for row, count in enumerate(counts):
                tokens[row, :count] = prompts[row][done[row] : done[row] + count]
            state = _read(self.config, self.params, state, tokens, counts.astype(np.int32))
            done += counts
            filled = (filled + counts) % (self.config.window_length or size + 1)
            progress(int(done.max()), int(lengths.max()))
        return state

    def _check_room(self, filled: np.ndarray, lengths: np.ndarray, num_tokens: int) -> None:
        if self.config.window_length is not None:
            return
        for row in range(len(lengths)):
            before = f"{filled[row]} tokens read before, " if filled[row] else ""
            if filled[row] + lengths[row] + num_tokens > self.segment_length:
                raise InputError(
                    f"{before}a prompt of {lengths[row]} and {num_tokens} new tokens: a model without a window reads "
                    f"at most its segment length, {self.segment_length}"
                )

    def generate(
        self,
        prompts: Sequence[str],
        *,
        num_tokens: int,
        sampling: Sampling | None = None,
        seed: int = 0,
        num_samples: int = 1,
        stop: Sequence[str] = (),
        state: DecodeState | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Iterator[Continuation]:
        """Continues prompts.

        A row's draws depend on the seed, on the number of its sample and on how much the row has read, not on the rows
        beside it. (Rows are computed as matrices: between batches of different sizes logits may differ by float
        rounding, as they do between any two shapes.)

        Args:
            prompts: texts.
            num_tokens: how many tokens to write.
            sampling: how to draw.
            seed: of the draws.
            num_samples: continuations of each prompt.
            stop: strings that end a continuation; they are not part of it.
            state: what was read before the prompts: one row or as many as prompts.
            progress: as in `read`.

        Returns:
            The samples of the first prompt, of the second, and so on, as they come.

        Raises:
            InputError: a prompt is empty with nothing read before, or there is no room for the continuation.
        """
        encoded = [self.encode(prompt) for prompt in prompts]
        if num_tokens < 1 or num_samples < 1:
            raise InputError(f"num_tokens = {num_tokens}, num_samples = {num_samples}: must be at least 1")
        contexts = self._rows(state, len(prompts)) if len(prompts) else None
        if contexts is None:
            return iter(())
        self._check_prompts(encoded, contexts, num_tokens)
        settings = _Settings(num_tokens, sampling or Sampling(), seed, num_samples, tuple(stop))
        settings.writer(self.vocabulary, 0, 0, [])  # refuses impossible stop strings now
        return self._generate(encoded, contexts, settings, progress)

    def _check_prompts(self, prompts: list[np.ndarray], state: DecodeState, num_tokens: int) -> None:
        begun = np.asarray(state.tokens).max(axis=1, initial=decode.NO_TOKEN) >= 0
        for number, prompt in enumerate(prompts):
            if not len(prompt) and not begun[number]:
                where = f"prompt {number}" if len(prompts) > 1 else "prompt"
                raise InputError(
                    f"{where}: empty; a document's first token is never predicted, so the model needs at least one "
                    "token, or a state that has read something, to continue"
                )
        self._check_room(np.asarray(state.filled), np.array([len(prompt) for prompt in prompts]), num_tokens)

    def _generate(
        self,
        prompts: list[np.ndarray],
        contexts: DecodeState,
        settings: "_Settings",
        progress: Callable[[int, int], None],
    ) -> Iterator[Continuation]:
        group = max(1, self.batch_size // settings.num_samples)
        for first in range(0, len(prompts), group):
            numbers = list(range(first, min(first + group, len(prompts))))
            # The last group is filled up, so that it has the shape of the others.
            padded = numbers + numbers[:1] * (min(group, len(prompts)) - len(numbers))
            states = self._read([prompts[n] for n in padded], _take_rows(contexts, padded), progress)
            rows = [(n, sample) for n in numbers for sample in range(settings.num_samples)]
            for start in range(0, len(rows), self.batch_size):
                yield from self._write(rows[start : start + self.batch_size], len(rows), first, states, settings)

    def _write(
        self, rows: list[tuple[int, int]], of: int, first: int, states: DecodeState, settings: "_Settings"
    ) -> Iterator[Continuation]:
        index = [number - first for number, _ in rows]
        recent = _recent_tokens(states)
        writers = [settings.writer(self.vocabulary, n, sample, recent[n - first]) for n, sample in rows]
        idle = min(of, self.batch_size) - len(rows)
        for _ in self._decode(_take_rows(states, index + index[:1] * idle), writers, settings, idle):
            pass
        yield from (writer.finish() for writer in writers)

    def _decode(
        self, state: DecodeState, writers: list[ContinuationWriter], settings: "_Settings", idle: int = 0
    ) -> Iterator[tuple[list[str], DecodeState]]:
        """Runs the loop on the device again and again; yields the text of each row and the state that has read it."""
        keys = row_keys(settings.seed, [writer.sample for writer in writers] + [0] * idle)
        run = functools.partial(
            _decode, self.config, settings.sampling, TOKENS_PER_CALL, self.vocabulary.size, self.params
        )
        while any(writer.remaining for writer in writers):
            counts = [min(writer.remaining, TOKENS_PER_CALL) for writer in writers]
            drawn, after = run(state, keys, np.array(counts + [0] * idle, np.int32))
            tokens, nats = np.asarray(drawn.tokens), np.asarray(drawn.nats)
            shown, taken = [], []
            for row, writer in enumerate(writers):
                count, text = writer.take(tokens[row, : counts[row]].tolist(), nats[row, : counts[row]].tolist())
                taken.append(count)
                shown.append(text)
            if taken != counts:  # a stop string has appeared: again, so that the state ends with it
                _, after = run(state, keys, np.array(taken + [0] * idle, np.int32))
            state = after
            yield shown, state

    def stream(
        self,
        prompt: str,
        *,
        num_tokens: int,
        sampling: Sampling | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        state: DecodeState | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> "Stream":
        """Continues one prompt and gives the text while it comes; see `generate`."""
        encoded, context = [self.encode(prompt)], self._rows(state, 1)
        self._check_prompts(encoded, context, num_tokens)
        settings = _Settings(num_tokens, sampling or Sampling(), seed, 1, tuple(stop))
        settings.writer(self.vocabulary, 0, 0, [])
        return Stream(self, self._read(encoded, context, progress), settings)

    def score(self, texts: Sequence[str], *, state: DecodeState | None = None) -> Iterator[Score]:
        """Scores texts as evaluation does: each token's cost given everything before it.

        Args:
            texts: each is read behind the state; without one each is a document, whose first token is read, not scored.
            state: one row, which all texts share.

        Returns:
            A score for each text, in their order.

        Raises:
            InputError: a text has nothing to score, or without a window is longer than the room that is left.
        """
        begun = state is not None and bool(np.asarray(state.position)[0])
        pending = np.asarray(state.tokens)[0, : int(state.filled[0])] if state is not None else np.zeros(0, np.int32)
        rows = []
        for number, text in enumerate(texts):
            ids = self.encode(text)
            if len(ids) < (1 if begun else 2):
                raise InputError(
                    f"text {number}: {len(ids)} token(s), nothing to score; a document's first token is only read"
                )
            self._check_room(np.array([len(pending)]), np.array([len(ids)]), 0)
            skipped = 0 if begun else self.vocabulary.first_token_bytes(text)
            rows.append(TextToScore(ids, len(text.encode("utf-8", "replace")) - skipped))
        context = state if state is not None and begun else None
        return score_rows(
            self.config, self.params, rows, context, batch_size=self.batch_size, segment_length=self.segment_length
        )

    @functools.cached_property
    def identity(self) -> ModelIdentity:
        """Which model this is, for state files."""
        return ModelIdentity.of(self.config, self.params, self.vocabulary.fingerprint)

    def check_room_for_state(self, path: Path) -> None:
        """Checks that a state of one row can be written there; see `state_file.check_room`."""
        check_room(path, self.start())

    def save_state(self, path: Path, state: DecodeState) -> None:
        """Writes a state; see `state_file.save_state`."""
        save_state(path, state, self.identity)

    def load_state(self, path: Path) -> DecodeState:
        """Reads a state; see `state_file.load_state`."""
        return load_state(path, self.start(), self.identity)


class Stream:
    """The text of one continuation while it comes: iterate over it.

    Attributes:
        state: the state that has read everything that was yielded.
    """

    def __init__(self, generator: Generator, state: DecodeState, settings: "_Settings"):
        self.state = state
        self._generator = generator
        self._settings = settings
        self._writer = settings.writer(generator.vocabulary, 0, 0, _recent_tokens(state)[0])

    def __iter__(self) -> Iterator[str]:
        for shown, state in self._generator._decode(self.state, [self._writer], self._settings):
            self.state = state
            yield shown[0]

    def finish(self) -> Continuation:
        """The whole, once it was iterated over."""
        return self._writer.finish()


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What the caller of `generate` wants of every row."""

    num_tokens: int
    sampling: Sampling
    seed: int
    num_samples: int
    stop: tuple[str, ...]

    def writer(self, vocabulary: Vocabulary, prompt: int, sample: int, context: Sequence[int]) -> ContinuationWriter:
        """An empty continuation."""
        return ContinuationWriter(
            prompt=prompt,
            sample=sample,
            vocabulary=vocabulary,
            context=context,
            num_tokens=self.num_tokens,
            stop=self.stop,
        )


def _take_rows(state: DecodeState, rows: Sequence[int] | np.ndarray) -> DecodeState:
    index = jnp.asarray(rows)
    return jax.tree.map(lambda leaf: leaf[index], state)


def _recent_tokens(state: DecodeState) -> list[list[int]]:
    """The last few ids that each row has read, in their order."""
    tokens, filled = np.asarray(state.tokens), np.asarray(state.filled)
    rolled = [np.roll(row, -int(count))[-4:] for row, count in zip(tokens, filled, strict=True)]
    return [[int(token) for token in row if token >= 0] for row in rolled]

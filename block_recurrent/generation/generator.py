"""Text generation: prefills prompts, samples continuations and scores texts with the recurrent state."""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from block_recurrent.config import ModelConfig
from block_recurrent.data.vocabulary import Vocabulary
from block_recurrent.errors import InputError
from block_recurrent.files import resolve
from block_recurrent.generation.completion import Continuation, ContinuationWriter, SampleSettings
from block_recurrent.generation.decode_state import NO_TOKEN, DecodeState, recent_tokens
from block_recurrent.generation.exported_model import load_exported_model
from block_recurrent.generation.prefill_loop import check_length, prefill_prompts
from block_recurrent.generation.programs import programs, take_rows
from block_recurrent.generation.sampling import Sampling, row_keys
from block_recurrent.generation.scoring import Score, score_rows
from block_recurrent.generation.state_file import ModelIdentity, check_room, load_state, save_state
from block_recurrent.generation.stream import Stream
from block_recurrent.generation.text_to_score import text_to_score
from block_recurrent.parallel.placement import Placement, to_host
from block_recurrent.progress import ProgressCallback
from block_recurrent.training.saved_run import SavedRun
from block_recurrent.typing import Params

TOKENS_PER_CALL = 32  # of the decode loop; text is shown after each call


def _no_progress(done: int, total: int) -> None:
    """A `ProgressCallback` that does nothing."""


class Generator:
    """A model with its vocabulary, for generation and scoring.

    A `DecodeState` represents all text so far: `prefill` returns one, `generate` and `score` continue from one, and
    `save_state` writes one to a file. It has one row per prompt; a state of one row can be shared by all prompts.

    Args:
        config: the model.
        params: its parameters.
        vocabulary: the vocabulary that the model was trained with.
        segment_length: number of tokens in one call of prefill; a multiple of the window. Without a window it is the
            segment length of training, which prompt and continuation together must not exceed. With an external memory
            it is the number of tokens after which the memory is written: the segment length of training.
        batch_size: number of rows that are computed together; rounded up to a multiple of the placement's devices.
        placement: the devices; None means one device. With several processes it is needed, and all processes make the
            same calls.

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
        placement: Placement | None = None,
    ):
        if segment_length < 1 or segment_length % (config.window_length or 1):
            raise InputError(
                f"segment_length = {segment_length}: must be a multiple of the window, {config.window_length}"
            )
        config.check_memory_segment(segment_length, "segment_length")
        if batch_size < 1:
            raise InputError(f"batch_size = {batch_size}: must be at least 1")
        self.config = config
        self.params = params if placement is None else placement.put_params(params)
        self.vocabulary = vocabulary
        self.segment_length = segment_length
        self.batch_size = batch_size if placement is None else placement.padded(batch_size)
        self._placement, self._programs = placement, programs(placement)

    @classmethod
    def from_workdir(
        cls,
        path: os.PathLike[str] | str,
        *,
        batch_size: int = 8,
        vocabulary: str | None = None,
        segment_length: int | None = None,
        placement: Placement | None = None,
    ) -> "Generator":
        """Creates a generator from a run's newest checkpoint.

        Args:
            path: the run's folder, local or remote, or `checkpoints/STEP` in it for another checkpoint.
            batch_size: number of rows that are computed together.
            vocabulary: file of the run's vocabulary, if it is not found; see `SavedRun.vocabulary`.
            segment_length: None is that of the run's training.
            placement: the devices; None means one device.

        Raises:
            InputError: the folder holds no run or no such checkpoint, or the run's vocabulary is not found.
        """
        run = SavedRun.load(resolve(path), placement)
        return cls.of_run(
            run, batch_size=batch_size, vocabulary=vocabulary, segment_length=segment_length, placement=placement
        )

    @classmethod
    def of_run(
        cls,
        run: SavedRun,
        *,
        batch_size: int = 8,
        vocabulary: str | None = None,
        segment_length: int | None = None,
        placement: Placement | None = None,
    ) -> "Generator":
        """Creates a generator from a loaded run; see `from_workdir`.

        Raises:
            InputError: the run's vocabulary is not found.
        """
        length, own = segment_length or run.config.data.segment_length, run.vocabulary(vocabulary)
        return cls(run.config.model, run.params, own, segment_length=length, batch_size=batch_size, placement=placement)

    @classmethod
    def from_folder(
        cls,
        name_or_folder: os.PathLike[str] | str,
        *,
        batch_size: int = 8,
        vocabulary: str | None = None,
        segment_length: int | None = None,
        placement: Placement | None = None,
    ) -> "Generator":
        """Creates a generator from a model that was exported, by name or by folder.

        Args:
            name_or_folder: name of a packaged model, such as `sample`, folder that `export` wrote, or `hf://OWNER/NAME`.
            batch_size: number of rows that are computed together.
            vocabulary: file of the model's vocabulary, if the export has no copy of it.
            segment_length: None is that of the model's training.
            placement: the devices; None means one device.

        Raises:
            InputError: there is no such model, it cannot be read, or its vocabulary is not found. Or it has an external
                memory, and its segment length is neither recorded nor given.
        """
        model = load_exported_model(name_or_folder, vocabulary, segment_length)
        params = model.params if placement is not None else jax.device_put(model.params, jax.local_devices()[0])
        length = model.segment_length
        return cls(
            model.config, params, model.vocabulary, segment_length=length, batch_size=batch_size, placement=placement
        )

    def encode(self, text: str) -> np.ndarray:
        """Returns the ids of a text, (n,) int32; characters outside the vocabulary become its unknown id."""
        return np.asarray(self.vocabulary.encode(text), np.int32)

    def unknown_tokens(self, text: str) -> int:
        """Returns the number of unknown ids in a text."""
        return int(np.sum(self.encode(text) == self.vocabulary.unknown_id))

    def start(self, rows: int = 1) -> DecodeState:
        """Returns the state at the start of a document; it needs at least one token before sampling."""
        state = self._programs.init(self.config, self.params, rows, segment_length=self.segment_length)
        return self._spread(state)

    def _spread(self, state: DecodeState) -> DecodeState:
        return state if self._placement is None else self._placement.spread(state)

    def _take_rows(self, state: DecodeState, rows: Sequence[int]) -> DecodeState:
        return self._spread(take_rows(state, rows))

    def prefill(
        self,
        prompts: Sequence[str],
        *,
        state: DecodeState | None = None,
        progress: ProgressCallback = _no_progress,
    ) -> DecodeState:
        """Processes a prompt in each row and returns the state after them.

        Args:
            prompts: texts; an empty one does not change its row.
            state: the state before the prompts, with one row or one per prompt; None starts documents.
            progress: called with (tokens done, tokens in total) of the longest prompt.

        Raises:
            InputError: a model without a window gets more tokens than its segment length.
        """
        return self._prefill([self.encode(prompt) for prompt in prompts], self._rows(state, len(prompts)), progress)

    read = prefill  # the name of 0.1.0

    def _rows(self, state: DecodeState | None, rows: int) -> DecodeState:
        if state is None:
            return self.start(rows)
        have = len(state.filled)
        if have not in (1, rows):
            raise InputError(f"state of {have} rows: cannot be used for {rows} prompts; it must have 1 or {rows} rows")
        return state if have == rows else self._take_rows(state, [0] * rows)

    def _prefill(self, prompts: list[np.ndarray], state: DecodeState, progress: ProgressCallback) -> DecodeState:
        return prefill_prompts(
            self.config,
            functools.partial(self._programs.prefill, self.config, self.params),
            prompts,
            state,
            segment_length=self.segment_length,
            progress=progress,
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
        progress: ProgressCallback = _no_progress,
    ) -> Iterator[Continuation]:
        """Samples continuations of prompts.

        The random numbers of a row depend on the seed, the index of its sample and the number of its tokens so far, not
        on the other rows. Logits may differ by float rounding between batches of different sizes, because matrix
        products of different shapes round differently.

        Args:
            prompts: texts.
            num_tokens: the largest number of tokens in a continuation.
            sampling: temperature and filters; None samples from the model's distribution.
            seed: seed of the random numbers.
            num_samples: number of continuations of each prompt.
            stop: strings that end a continuation; they are not part of its text.
            state: the state before the prompts, with one row or one per prompt; None starts documents.
            progress: called with the progress of prefill, as in `prefill`.

        Returns:
            An iterator over the samples of the first prompt, of the second, and so on.

        Raises:
            InputError: a prompt is empty at the start of a document, an argument has a value that is not allowed, or a
                model without a window gets more tokens than its segment length.
        """
        encoded = [self.encode(prompt) for prompt in prompts]
        if num_tokens < 1 or num_samples < 1:
            raise InputError(f"num_tokens = {num_tokens}, num_samples = {num_samples}: must be at least 1")
        contexts = self._rows(state, len(prompts)) if len(prompts) else None
        if contexts is None:
            return iter(())
        self._check_prompts(encoded, contexts, num_tokens)
        settings = SampleSettings(num_tokens, sampling or Sampling(), seed, num_samples, tuple(stop))
        settings.writer(self.vocabulary, 0, 0, [])  # reports bad stop strings now, not in the first iteration
        return self._generate(encoded, contexts, settings, progress)

    def _check_prompts(self, prompts: list[np.ndarray], state: DecodeState, num_tokens: int) -> None:
        begun = to_host(state.tokens).max(axis=1, initial=NO_TOKEN) >= 0
        for number, prompt in enumerate(prompts):
            if not len(prompt) and not begun[number]:
                where = f"prompt {number}" if len(prompts) > 1 else "prompt"
                raise InputError(
                    f"{where}: empty; the model does not predict a document's first token, so pass at least one token, "
                    "or a state that already has tokens"
                )
        lengths = np.array([len(prompt) for prompt in prompts])
        check_length(self.config, self.segment_length, to_host(state.filled), lengths, num_tokens)

    def _generate(
        self,
        prompts: list[np.ndarray],
        contexts: DecodeState,
        settings: SampleSettings,
        progress: ProgressCallback,
    ) -> Iterator[Continuation]:
        group = max(1, self.batch_size // settings.num_samples)
        for first in range(0, len(prompts), group):
            numbers = list(range(first, min(first + group, len(prompts))))
            # The last group is padded to the shape of the others, so that nothing is compiled again.
            padded = numbers + numbers[:1] * (min(group, len(prompts)) - len(numbers))
            states = self._prefill([prompts[n] for n in padded], self._take_rows(contexts, padded), progress)
            rows = [(n, sample) for n in numbers for sample in range(settings.num_samples)]
            for start in range(0, len(rows), self.batch_size):
                yield from self._complete(rows[start : start + self.batch_size], len(rows), first, states, settings)

    def _complete(
        self, rows: list[tuple[int, int]], num_rows: int, first: int, states: DecodeState, settings: SampleSettings
    ) -> Iterator[Continuation]:
        index = [number - first for number, _ in rows]
        recent = recent_tokens(states)
        writers = [settings.writer(self.vocabulary, n, sample, recent[n - first]) for n, sample in rows]
        idle = min(num_rows, self.batch_size) - len(rows)  # padding, as in the last group of prompts
        for _ in self._sample(self._take_rows(states, index + index[:1] * idle), writers, settings, idle):
            pass
        yield from (writer.finish() for writer in writers)

    def _sample(
        self, state: DecodeState, writers: list[ContinuationWriter], settings: SampleSettings, idle: int = 0
    ) -> Iterator[tuple[list[str], DecodeState]]:
        """Calls the decode loop until all writers are done; yields each row's new text and the state after it."""
        keys = row_keys(settings.seed, [writer.sample for writer in writers] + [0] * idle)
        run = functools.partial(
            self._programs.sample_tokens,
            self.config,
            settings.sampling,
            TOKENS_PER_CALL,
            self.vocabulary.size,
            self.params,
        )
        while any(writer.remaining for writer in writers):
            counts = [min(writer.remaining, TOKENS_PER_CALL) for writer in writers]
            sampled, after = run(state, keys, np.array(counts + [0] * idle, np.int32))
            tokens, losses = to_host(sampled.tokens), to_host(sampled.losses)
            shown, taken = [], []
            for row, writer in enumerate(writers):
                count, text = writer.take(tokens[row, : counts[row]].tolist(), losses[row, : counts[row]].tolist())
                taken.append(count)
                shown.append(text)
            if taken != counts:  # a stop string appeared: run again, so that the state ends with its last token
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
        progress: ProgressCallback = _no_progress,
    ) -> Stream:
        """Samples a continuation of one prompt and yields its text piece by piece; see `generate`."""
        encoded, context = [self.encode(prompt)], self._rows(state, 1)
        self._check_prompts(encoded, context, num_tokens)
        settings = SampleSettings(num_tokens, sampling or Sampling(), seed, 1, tuple(stop))
        settings.writer(self.vocabulary, 0, 0, [])
        after = self._prefill(encoded, context, progress)
        writer = settings.writer(self.vocabulary, 0, 0, recent_tokens(after)[0])
        return Stream(after, writer, self._sample(after, [writer], settings))

    def score(self, texts: Sequence[str], *, state: DecodeState | None = None) -> Iterator[Score]:
        """Scores texts as evaluation does: computes each token's loss given all tokens before it.

        Args:
            texts: each continues `state`. Without a state each is a document; its first token is not scored.
            state: a state of one row, shared by all texts.

        Returns:
            An iterator over the texts' scores, in order.

        Raises:
            InputError: a text has no token to score, or a model without a window gets more tokens than its segment
                length.
        """
        begun = state is not None and bool(to_host(state.position)[0])
        pending = to_host(state.tokens)[0, : to_host(state.filled)[0]] if state is not None else np.zeros(0, np.int32)
        rows = [text_to_score(number, text, self.vocabulary, begun=begun) for number, text in enumerate(texts)]
        for row in rows:
            sizes = np.array([len(pending)]), np.array([len(row.ids)])
            check_length(self.config, self.segment_length, *sizes, 0)
        context = state if state is not None and begun else None
        return score_rows(
            self.config,
            self.params,
            rows,
            context,
            batch_size=self.batch_size,
            segment_length=self.segment_length,
            placement=self._placement,
        )

    @functools.cached_property
    def identity(self) -> ModelIdentity:
        """The model's identity in state files."""
        return ModelIdentity.of(self.config, self.params, self.vocabulary.fingerprint)

    def check_room_for_state(self, path: Path) -> None:
        """Checks that a state of one row can be written to a file; see `state_file.check_room`."""
        check_room(path, self.start())

    def save_state(self, path: Path, state: DecodeState) -> None:
        """Writes a state to a file; see `state_file.save_state`."""
        save_state(path, state, self.identity)

    def load_state(self, path: Path) -> DecodeState:
        """Reads a state from a file; see `state_file.load_state`."""
        return self._spread(load_state(path, self.start(), self.identity))

"""Evaluation of one model on one split: runs the passes that the studies need and writes their results."""

import contextlib
import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from block_recurrent.config import DataConfig, EvaluationConfig, fields_that_may_differ
from block_recurrent.config.model import MEMORY_FIELDS
from block_recurrent.data.store.open_split import open_split
from block_recurrent.data.store.partial_store import partial_store
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.errors import InputError
from block_recurrent.evaluation import ablations, parquet, provenance
from block_recurrent.evaluation.diagnostics import watch
from block_recurrent.evaluation.meliad_protocol import score_as_official_code
from block_recurrent.evaluation.model_under_test import ModelUnderTest
from block_recurrent.evaluation.passes import ResumablePasses, Shape
from block_recurrent.evaluation.records import Result, write
from block_recurrent.evaluation.results import Ablations, Context, Diagnostics, LayerDiagnostics, OfficialScores, Scores
from block_recurrent.evaluation.scorer import ScoringMethod, carried
from block_recurrent.evaluation.scores import by_position, scored_text, summarise
from block_recurrent.evaluation.token_losses import TokenLosses
from block_recurrent.parallel.placement import Placement
from block_recurrent.parallel.processes import all_true, is_primary
from block_recurrent.progress import StageCallback


class Evaluation:
    """A model and a split that have been checked to fit each other.

    Args:
        model: the model under test.
        data: the store and the shape of the batches.
        split: split of the store.
        config: settings of the studies.
        folder: output folder; None means a folder below the model's home, by store, split and step.
        progress: called with the name of a pass, the steps done and all steps.
        placement: the devices; None means all, each with all parameters.

    With several processes all of them make the same calls; each reads its rows, and the first one writes.

    Raises:
        InputError: the store is missing, damaged or of another vocabulary, or the shape does not fit the model.
    """

    def __init__(
        self,
        model: ModelUnderTest,
        data: DataConfig,
        split: str,
        config: EvaluationConfig,
        *,
        folder: epath.Path | None = None,
        progress: StageCallback = lambda name, done, total: None,
        placement: Placement | None = None,
    ):
        self.model, self.config = model, config
        self.store = _open(model, data, split, config)
        self.shape = Shape(batch_size=data.batch_size, segment_length=data.segment_length)
        # Ablations count segments of training, whatever the shape of these batches.
        self._segment = (model.shape or data).segment_length
        if model.config.window_length and data.segment_length % model.config.window_length:
            raise InputError(
                f"DataConfig.segment_length = {data.segment_length}: must be a multiple of the model's window, "
                f"ModelConfig.window_length = {model.config.window_length}"
            )
        model.config.check_memory_segment(data.segment_length, "DataConfig.segment_length")
        self.folder = folder or split_folder(model, data, split) / f"step_{model.subject.step}{_suffix(config)}"
        self.bootstrap = provenance.describe_bootstrap(config)
        self._placement, self._progress = placement or Placement(), progress
        self._passes = ResumablePasses(self.folder, json.loads(self.identity))

    @property
    def identity(self) -> str:
        """Everything that determines the token losses, as JSON."""
        subject, free = self.model.subject, fields_that_may_differ("token_losses")
        if not self.model.config.memory_layers:
            free |= MEMORY_FIELDS  # without meaning, and token losses of earlier versions have none of them
        model = {name: value for name, value in subject.config.items() if name not in free}
        facts = {"params": subject.fingerprint, "model": model, "store": self.store.fingerprint}
        if self.model.config.depends_on_segments:
            facts["segment_length"] = self.shape.segment_length
        return json.dumps(facts, sort_keys=True)

    @property
    def header(self) -> dict[str, Any]:
        """The first fields of every result of this evaluation."""
        return {
            "data": provenance.describe_data(self.store),
            "provenance": provenance.describe_provenance(self.shape),
            "bootstrap": self.bootstrap,
            "subject": self.model.subject,
        }

    @contextlib.contextmanager
    def scored(self) -> Iterator[TokenLosses]:
        """Yields all token losses, from `tokens.parquet` if it exists and otherwise from a pass over the split.

        The next call resumes passes that were interrupted inside the context.
        """
        with self._passes.locked():
            losses = parquet.read_tokens(self.folder, self.store, self.identity)
            if not all_true(losses is not None) or losses is None:  # a process may not see the file
                losses = self._run(carried(self.model.config))
            yield losses

    def write_scores(self, losses: TokenLosses) -> Scores:
        """Writes `scores.json`, `context.json` and `documents.parquet`."""
        result = Scores(**self.header, **summarise(self.store, losses, self.bootstrap))
        context = Context(**self.header, by_position=by_position(losses, self.bootstrap))
        text = scored_text(self.store)
        columns = {
            "document": text.documents,
            "name": [self.store.names[int(d)] for d in text.documents],
            "length": self.store.lengths[text.documents],
            "tokens": text.tokens,
            "bytes": text.bytes,
            "characters": text.characters,
            "words": text.words,
            "nats": losses.sums()[text.documents],
        }
        if is_primary():
            parquet.write_table(self.folder / "documents.parquet", columns)
        self._write(context)
        self._write(result)
        return result

    def write_tokens(self, losses: TokenLosses) -> None:
        """Writes `tokens.parquet`."""
        if is_primary() and parquet.read_tokens(self.folder, self.store, self.identity) is None:
            parquet.write_tokens(self.folder, self.store, losses, self.identity)

    def read_tokens(self) -> TokenLosses:
        """Returns the token losses that `write_tokens` wrote.

        Raises:
            InputError: the file no longer exists or has changed.
        """
        losses = parquet.read_tokens(self.folder, self.store, self.identity)
        if losses is None:
            raise InputError(f"{self.folder}: tokens.parquet was removed or changed during this command; run it again")
        return losses

    def write_official(self) -> OfficialScores:
        """Scores with the official code's protocol, and writes `official.json`."""
        numbers = score_as_official_code(
            self.model.config,
            self.model.params,
            self.store,
            self.shape,
            segments=self.config.official_segments,
            placement=self._placement,
            progress=functools.partial(self._progress, "official"),
        )
        result = OfficialScores(**self.header, **numbers)
        self._write(result)
        return result

    def write_ablations(self, losses: TokenLosses) -> Ablations:
        """Runs the ablations, and writes `ablations.json` and `ablations.parquet`."""
        segment = self._segment
        planned, skipped = ablations.plan(
            self.model.config,
            self.store,
            reset_tokens=self.config.reset_segments * segment,
            frozen_tokens=self.config.frozen_segments * segment,
        )
        results, costs = [], []
        text = scored_text(self.store)
        columns: dict[str, np.ndarray] = {"document": text.documents, "tokens": text.tokens}
        for result, scored, cost in ablations.run_ablations(planned, losses, self.store, self.bootstrap, self._run):
            results.append(result)
            costs.append(cost)
            columns[result.name] = scored.sums()[text.documents]
        if is_primary():
            parquet.write_table(self.folder / "ablations.parquet", columns)
        study = Ablations(
            **self.header,
            ablations=tuple(results),
            contribution=ablations.contribution(list(zip(results, costs, strict=True))),
            skipped=skipped,
        )
        self._write(study)
        return study

    def write_diagnostics(self) -> Diagnostics:
        """Records gates and states on the longest document, and writes `diagnostics.json`.

        Every process computes all of it, on one device.
        """
        config = self.model.config
        longest = int(np.argmax(self.store.lengths))
        tokens = self.store.read(longest, 0, self.config.diagnostic_tokens)
        layers: tuple[LayerDiagnostics, ...] = ()
        if config.recurrent_layers and len(tokens) >= (config.window_length or 0):
            progress = functools.partial(self._progress, "diagnostics")
            layers = watch(config, self.model.params, tokens, progress)
        result = Diagnostics(
            **self.header,
            document=self.store.names[longest],
            tokens=len(tokens),
            window_length=config.window_length,
            layers=layers,
        )
        self._write(result)
        return result

    def _write(self, result: Result) -> None:
        if is_primary():
            write(result, self.folder)

    def _run(self, method: ScoringMethod) -> TokenLosses:
        return self._passes.run(
            method,
            self.model.params,
            self.store,
            self.shape,
            placement=self._placement,
            progress=functools.partial(self._progress, method.name),
        )


def _open(model: ModelUnderTest, data: DataConfig, split: str, config: EvaluationConfig) -> TokenStore:
    store = open_split(data, split, vocab_size=model.config.vocab_size, vocabulary=model.vocabulary)
    if not (store.lengths > 1).any():
        raise InputError(f"{store.path}: no document has two tokens, so there is nothing to score")
    return partial_store(store, documents=config.max_documents, tokens=config.max_tokens, seed=config.seed)


def _suffix(config: EvaluationConfig) -> str:
    """Returns the end of the folder's name: results of a part never replace those of the whole split."""
    limits = {"documents": config.max_documents, "tokens": config.max_tokens}
    return "".join(f"_max_{limit}_{name}" for name, limit in limits.items() if limit is not None)


def split_folder(model: ModelUnderTest, data: DataConfig, split: str) -> epath.Path:
    """Returns the folder of all evaluations of a run on one split; it has a folder for each checkpoint."""
    return model.home / "evaluation" / epath.Path(data.store).name / split

"""One model on one split: the passes that the studies need, and the files that they leave."""

import contextlib
import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from block_recurrent.config import DataConfig, EvaluationConfig
from block_recurrent.data.store.open_split import open_split
from block_recurrent.errors import InputError
from block_recurrent.evaluation import ablations, parquet, provenance
from block_recurrent.evaluation.diagnostics import watch
from block_recurrent.evaluation.meliad_protocol import score_as_official_code
from block_recurrent.evaluation.model_under_test import Candidate
from block_recurrent.evaluation.passes import Shape, Workplace
from block_recurrent.evaluation.records import write
from block_recurrent.evaluation.results import Ablations, Context, Diagnostics, LayerDiagnostics, OfficialScores, Scores
from block_recurrent.evaluation.scorer import Method, Placement, carried
from block_recurrent.evaluation.scores import by_position, scored_text, summarise
from block_recurrent.evaluation.token_losses import TokenLosses
from block_recurrent.progress import StageCallback

# Told (name of the pass, steps done, steps in all).


class Evaluation:
    """A model and a split, checked to fit each other.

    Args:
        candidate: the model.
        data: names the store, and the shape of the batches.
        split: which part of the store.
        config: of the studies.
        folder: where the files go; None means below the model's home, by store, split and step.
        progress: called with how far a pass is.

    Raises:
        InputError: the store is missing, damaged or of another vocabulary, or the shape does not fit the model.
    """

    def __init__(
        self,
        candidate: Candidate,
        data: DataConfig,
        split: str,
        config: EvaluationConfig,
        *,
        folder: epath.Path | None = None,
        progress: StageCallback = lambda name, done, total: None,
    ):
        model = candidate.config
        self.candidate, self.config = candidate, config
        self.store = open_split(data, split, vocab_size=model.vocab_size, vocabulary=candidate.vocabulary)
        if not (self.store.lengths > 1).any():
            raise InputError(f"{self.store.path}: no document has the two tokens that one prediction needs")
        self.shape = Shape(batch_size=data.batch_size, segment_length=data.segment_length)
        # Of the segments that the model was trained on, whatever the shape of these batches.
        self._segment = (candidate.data or data).segment_length
        if model.window_length and data.segment_length % model.window_length:
            raise InputError(
                f"DataConfig.segment_length = {data.segment_length}: must be a multiple of the model's window, "
                f"ModelConfig.window_length = {model.window_length}"
            )
        self.folder = folder or split_folder(candidate, data, split) / f"step_{candidate.subject.step}"
        self.bootstrap = provenance.describe_bootstrap(config)
        self._placement, self._progress = Placement(), progress
        self._workplace = Workplace(self.folder, json.loads(self.identity))

    @property
    def identity(self) -> str:
        """What decides every token's loss, as JSON."""
        subject = self.candidate.subject
        facts = {"params": subject.fingerprint, "model": subject.config, "store": self.store.fingerprint}
        if self.candidate.config.window_length is None:
            facts["segment_length"] = self.shape.segment_length  # how far back a model without a window can see
        return json.dumps(facts, sort_keys=True)

    @property
    def header(self) -> dict[str, Any]:
        """The fields that all results of this evaluation begin with."""
        return {
            "data": provenance.describe_data(self.store),
            "provenance": provenance.describe_provenance(self.shape),
            "bootstrap": self.bootstrap,
            "subject": self.candidate.subject,
        }

    @contextlib.contextmanager
    def scored(self) -> Iterator[TokenLosses]:
        """The nats of every token: from `tokens.parquet` if they are there, otherwise from a pass.

        What is interrupted inside is gone on with the next time.
        """
        with self._workplace.opened():
            nats = parquet.read_tokens(self.folder, self.store, self.identity)
            yield self._run(carried(self.candidate.config)) if nats is None else nats

    def write_scores(self, nats: TokenLosses) -> Scores:
        """Writes `scores.json`, `context.json` and `documents.parquet`."""
        result = Scores(**self.header, **summarise(self.store, nats, self.bootstrap))
        context = Context(**self.header, by_position=by_position(nats, self.bootstrap))
        text = scored_text(self.store)
        columns = {
            "document": text.documents,
            "name": [self.store.names[int(d)] for d in text.documents],
            "length": self.store.lengths[text.documents],
            "tokens": text.tokens,
            "bytes": text.bytes,
            "characters": text.characters,
            "words": text.words,
            "nats": nats.sums()[text.documents],
        }
        parquet.write_table(self.folder / "documents.parquet", columns)
        write(context, self.folder)
        write(result, self.folder)
        return result

    def write_tokens(self, nats: TokenLosses) -> None:
        """Writes `tokens.parquet`."""
        if parquet.read_tokens(self.folder, self.store, self.identity) is None:
            parquet.write_tokens(self.folder, self.store, nats, self.identity)

    def read_tokens(self) -> TokenLosses:
        """What `write_tokens` has written.

        Raises:
            InputError: it is gone.
        """
        nats = parquet.read_tokens(self.folder, self.store, self.identity)
        if nats is None:
            raise InputError(f"{self.folder}: tokens.parquet has been removed or changed meanwhile; run this again")
        return nats

    def write_official(self) -> OfficialScores:
        """Evaluates as the official code does, and writes `official.json`."""
        numbers = score_as_official_code(
            self.candidate.config,
            self.candidate.params,
            self.store,
            self.shape,
            segments=self.config.official_segments,
            placement=self._placement,
            progress=functools.partial(self._progress, "official"),
        )
        result = OfficialScores(**self.header, **numbers)
        write(result, self.folder)
        return result

    def write_ablations(self, nats: TokenLosses) -> Ablations:
        """Runs the ablations, and writes `ablations.json` and `ablations.parquet`."""
        model, segment = self.candidate.config, self._segment
        planned, skipped = ablations.plan(
            model,
            self.store,
            reset_tokens=self.config.reset_segments * segment,
            frozen_tokens=self.config.frozen_segments * segment,
        )
        results, costs = [], []
        text = scored_text(self.store)
        columns: dict[str, np.ndarray] = {"document": text.documents, "tokens": text.tokens}
        for result, scored, cost in ablations.run_ablations(planned, nats, self.store, self.bootstrap, self._run):
            results.append(result)
            costs.append(cost)
            columns[result.name] = scored.sums()[text.documents]
        parquet.write_table(self.folder / "ablations.parquet", columns)
        study = Ablations(
            **self.header,
            ablations=tuple(results),
            contribution=ablations.contribution(list(zip(results, costs, strict=True))),
            skipped=skipped,
        )
        write(study, self.folder)
        return study

    def write_diagnostics(self) -> Diagnostics:
        """Watches gates and states through the longest document, and writes `diagnostics.json`."""
        config = self.candidate.config
        longest = int(np.argmax(self.store.lengths))
        tokens = self.store.read(longest, 0, self.config.diagnostic_tokens)
        layers: tuple[LayerDiagnostics, ...] = ()
        if config.recurrent_layers and len(tokens) >= (config.window_length or 0):
            progress = functools.partial(self._progress, "diagnostics")
            layers = watch(config, self.candidate.params, tokens, progress)
        result = Diagnostics(
            **self.header,
            document=self.store.names[longest],
            tokens=len(tokens),
            window_length=config.window_length,
            layers=layers,
        )
        write(result, self.folder)
        return result

    def _run(self, method: Method) -> TokenLosses:
        return self._workplace.run(
            method,
            self.candidate.params,
            self.store,
            self.shape,
            placement=self._placement,
            progress=functools.partial(self._progress, method.name),
        )


def split_folder(candidate: Candidate, data: DataConfig, split: str) -> epath.Path:
    """Where the evaluations of a run on one split lie, a folder for each checkpoint."""
    return candidate.home / "evaluation" / epath.Path(data.store).name / split

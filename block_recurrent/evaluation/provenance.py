"""Descriptions that results contain: the model, the data, and the circumstances of the evaluation."""

import dataclasses
import datetime
import hashlib
import platform
import sys
from importlib import metadata
from typing import Literal

import jax
import numpy as np

from block_recurrent.config import EvaluationConfig, ModelConfig
from block_recurrent.data.sources.pg19 import PUBLISHED_DOCUMENTS, PUBLISHED_WORDS
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.data.vocabulary import ByteVocabulary
from block_recurrent.evaluation.passes import Shape
from block_recurrent.evaluation.records import Bootstrap, DataSet, Provenance, Subject
from block_recurrent.model.language_model import count_params
from block_recurrent.parallel.placement import to_host
from block_recurrent.typing import Params

_LIBRARIES = ("block-recurrent", "jax", "flax", "numpy", "tensorstore", "pyarrow")
_PG19 = "PG19"
# Corpora of the paper that were never released; data that replaces them is labelled a stand-in.
_UNRELEASED: dict[str | None, Literal["arXiv", "GitHub"]] = {"arXiv": "arXiv", "GitHub": "GitHub"}
_T5_TABLE = 32_128


def describe_subject(
    name: str, path: str, step: int | None, config: ModelConfig, params: Params, control: str | None = None
) -> Subject:
    """Returns the description of a model and its parameters."""
    return Subject(
        name=name,
        path=path,
        step=step,
        fingerprint=params_fingerprint(params),
        parameters=count_params(config),
        config=dataclasses.asdict(config),
        control=control,
    )


def params_fingerprint(params: Params) -> str:
    """Returns the hex SHA-256 of the parameters' names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(params):
        array = np.ascontiguousarray(to_host(leaf))
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def describe_data(store: TokenStore) -> DataSet:
    """Returns the description of a split, with a label for tables that marks stand-ins for the paper's corpora.

    Text that the user named otherwise than the source's published corpus is neither that corpus nor a stand-in for it.
    """
    about = store.metadata
    stand_in = about.published_corpus in _UNRELEASED
    label = f"{about.name} (stand-in)" if stand_in else about.name
    return DataSet(
        store=str(store.path.parent),
        source=about.source,
        split=about.split,
        label=label if store.part is None else f"{label} (partial)",
        stand_in=stand_in,
        paper_column=None if store.part else _paper_column(store),  # the paper scores whole splits
        fingerprint=store.fingerprint,
        vocabulary=about.vocabulary.spec,
        vocabulary_fingerprint=about.vocabulary.fingerprint,
        documents=about.counts.documents,
        tokens=about.counts.tokens,
        part=store.part,
    )


def _paper_column(store: TokenStore) -> Literal["PG19 bytes", "PG19 tokens", "arXiv", "GitHub"] | None:
    about = store.metadata
    if about.published_corpus == _PG19 and about.vocabulary.fingerprint == ByteVocabulary.fingerprint:
        return "PG19 bytes"
    if about.vocabulary.table_size != _T5_TABLE:
        return None
    return "PG19 tokens" if about.published_corpus == _PG19 else _UNRELEASED.get(about.published_corpus)


def official_words(store: TokenStore) -> int | None:
    """Returns the published word count of a split; None if there is none or the store lacks text of the split."""
    about = store.metadata
    whole = (
        store.part is None
        and about.published_corpus == _PG19
        and about.counts.documents == PUBLISHED_DOCUMENTS.get(about.split)
    )
    return PUBLISHED_WORDS[about.split] if whole else None


def describe_provenance(shape: Shape) -> Provenance:
    """Returns the command, date, library versions, devices and batch shape of this evaluation."""
    devices = jax.devices()
    return Provenance(
        command=tuple(sys.argv),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={name: metadata.version(name) for name in _LIBRARIES} | {"python": platform.python_version()},
        devices=f"{len(devices)} x {devices[0].device_kind}",
        batch_size=shape.batch_size,
        segment_length=shape.segment_length,
    )


def describe_bootstrap(config: EvaluationConfig) -> Bootstrap:
    """Returns the settings of the confidence intervals."""
    return Bootstrap(replicates=config.bootstrap_replicates, level=config.bootstrap_level, seed=config.seed)

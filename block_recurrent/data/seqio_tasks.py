"""The text sources as seqio tasks; the only module that imports seqio.

Importing it registers every task of `TASKS`. Sources with an input read `$BLOCK_RECURRENT_DATA/<source>`, or
`data/<source>` if that variable is not set. `register_task` registers a source with any other configuration.
A task's examples are whole documents without begin or end token; `targets` holds the ids that `prepare` writes.
"""

import functools
import os
from collections.abc import Iterator
from typing import Any

import seqio
import tensorflow as tf

from block_recurrent.config import PrepareConfig
from block_recurrent.data.sources.catalog import SOURCES, load_source
from block_recurrent.data.sources.source import Counts
from block_recurrent.data.sources.splits import SPLITS
from block_recurrent.data.vocabulary import ByteVocabulary, SentencePieceVocabulary

T5_VOCABULARY = "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model"
_T5_EXTRA_IDS = 100
_PG19 = "pg19:0.1.1"


def data_folder(source: str) -> str:
    """Returns the folder in which a task looks for its source's input."""
    return os.path.join(os.environ.get("BLOCK_RECURRENT_DATA", "data"), source)


def _config_of(source: str, vocabulary: str) -> PrepareConfig:
    given = data_folder(source) if SOURCES[source].input_needed and SOURCES[source].input else None
    return PrepareConfig(source=source, store="unused", input=given, vocabulary=vocabulary)


# Name -> source and vocabulary. Names that end in `_tokens` use T5's pieces, the others bytes.
TASKS = {
    task: (source, T5_VOCABULARY if task.endswith("_tokens") else ByteVocabulary.spec)
    for source, entry in SOURCES.items()
    for task in entry.tasks
}


def register_task(name: str, config: PrepareConfig) -> seqio.Task:
    """Registers a source as a seqio task.

    Args:
        name: name of the task, not registered yet.
        config: source, input, rules and vocabulary; its `store` is ignored.

    Returns:
        The task, with the feature `targets`.
    """
    feature = seqio.Feature(seqio_vocabulary(config.vocabulary), add_eos=False, required=True)
    return seqio.TaskRegistry.add(
        name,
        source=_data_source(config),
        preprocessors=[_name_and_text, seqio.preprocessors.tokenize],
        output_features={"targets": feature},
    )


def _data_source(config: PrepareConfig) -> Any:
    if config.source == "pg19_tfds":
        return seqio.TfdsDataSource(_PG19, tfds_data_dir=config.input, splits=SPLITS)
    return seqio.FunctionDataSource(functools.partial(_dataset, config), splits=SPLITS)


def _dataset(config: PrepareConfig, split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
    """Returns documents in the order of `prepare`; seqio itself shuffles them on request."""
    del shuffle_files, seed

    def documents() -> Iterator[dict[str, Any]]:
        source, counts = load_source(config), Counts()
        for record in source.walk(split, counts):
            for document in source.documents(record, counts):
                yield {"name": document.name, "text": document.text}

    signature = tf.TensorSpec((), tf.string)
    return tf.data.Dataset.from_generator(documents, output_signature={"name": signature, "text": signature})


def _name_and_text(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Maps the examples of every source to `name` and `targets`; TFDS's books are repaired like all other text."""

    def convert(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        if "book_text" not in example:
            return {"name": example["name"], "targets": example["text"]}
        name = tf.strings.join([tf.strings.as_string(example["book_id"]), example["book_title"]], separator=" ")
        return {"name": name, "targets": tf.strings.regex_replace(example["book_text"], r"^\x{FEFF}\s*", "")}

    return dataset.map(convert)


def seqio_vocabulary(spec: str) -> seqio.Vocabulary:
    """Returns seqio's own vocabulary with the same ids.

    Args:
        spec: as in `load_vocabulary`. T5's model is read only when it is used.
    """
    if spec == ByteVocabulary.spec:
        return seqio.ByteVocabulary()
    if spec == T5_VOCABULARY:
        return seqio.SentencePieceVocabulary(spec, extra_ids=_T5_EXTRA_IDS)
    return seqio.SentencePieceVocabulary(spec, extra_ids=SentencePieceVocabulary(spec).extra_ids)


for _name, (_source, _vocabulary) in TASKS.items():
    register_task(_name, _config_of(_source, _vocabulary))

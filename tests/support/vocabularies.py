"""Random text with a small lexicon, and SentencePiece models trained on it."""

from pathlib import Path
from typing import Any

import numpy as np

LEXICON = ["the", "river", "café", "Bern", "naïve", "of", "and", "house", "walked", "größer", "silent", "night"]


def prose(seed: int, words: int) -> str:
    """Returns random text with sentences, paragraphs and some non-ASCII letters."""
    rng = np.random.default_rng(seed)
    picked = rng.zipf(1.5, words) % len(LEXICON)
    ends = rng.choice([" ", ", ", ".\n", ".  "], words, p=[0.8, 0.1, 0.06, 0.04])
    return "".join(LEXICON[index] + end for index, end in zip(picked, ends, strict=True))


def train_pieces(prefix: Path, **options: Any) -> str:
    """Trains a tiny model with T5's special ids and returns its path, `<prefix>.model`."""
    import sentencepiece

    settings: dict[str, Any] = {
        "sentence_iterator": iter(prose(seed, 40) for seed in range(60)),
        "vocab_size": 60,
        "model_type": "unigram",
        "pad_id": 0,
        "eos_id": 1,
        "unk_id": 2,
        "bos_id": -1,
        "hard_vocab_limit": options.get("model_type") == "bpe",
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(model_prefix=str(prefix), **(settings | options))
    return f"{prefix}.model"

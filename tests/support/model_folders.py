"""Checks of a folder that `export` wrote: it is complete, and its card equals its records."""

import json
import re
from pathlib import Path

import yaml

from block_recurrent.generation.exported_model import load_exported_model

LARGEST = 8_000_000  # bytes of a packaged model
SECTIONS = ("Use", "Model", "Training data", "Scores", "Limits", "Files")


def check_complete(folder: Path) -> None:
    """Checks that the folder alone suffices to use, judge and cite the model."""
    load_exported_model(folder)  # parameters, configuration and vocabulary fit one another
    config = json.loads((folder / "config.json").read_text())
    assert config["format"] == "block_recurrent export 2"
    assert config["training"]["segment_length"] % (config["model"]["window_length"] or 1) == 0
    card = (folder / "README.md").read_text()
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == list(SECTIONS)
    assert "Not stated." not in card
    assert f"{config['training']['positions']:,}" in card
    for store in config["training"]["stores"]:
        assert f"{store['counts']['bytes']:,}" in card
        assert f"| {store.get('corpus', store['source'])} | {store['source']} | {store['split']} |" in card
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["license"] not in ("", "unknown")
    check_scores(folder)


def check_scores(folder: Path) -> None:
    """Checks the card's table and metadata against `scores.json` and `metrics.jsonl` of the folder."""
    card = (folder / "README.md").read_text()
    rows = re.findall(r"^\| (.*) \| \[(.*)\]\(\2\) \|$", card, re.MULTILINE)
    metadata = yaml.safe_load(card.split("---\n")[1])
    (model,) = metadata["model-index"]
    assert len(rows) == len(model["results"]) > 0
    step = json.loads((folder / "config.json").read_text())["step"]
    for (row, file), result in zip(rows, model["results"], strict=True):
        _, split, bits, interval, tokens, documents, _ = row.split(" | ")
        if file.endswith("scores.json"):
            record = json.loads((folder / file).read_text())
            estimate = record["bits_per_byte"]
            assert interval == f"{estimate['low']:.4f} to {estimate['high']:.4f}"
            assert record["subject"]["step"] == step
            assert record["data"]["split"] == split
        else:
            lines = [json.loads(line) for line in (folder / file).read_text().splitlines()]
            record = next(line for line in lines if line["step"] == step and line["group"] == split)
            estimate = {"value": record["bits_per_byte"]}
        assert result["metrics"] == [{"type": "bits_per_byte", "value": estimate["value"]}]
        assert result["dataset"]["split"] == split
        assert bits == f"{estimate['value']:.4f}"
        assert (tokens, documents) == (f"{record['tokens']:,}", f"{record['documents']:,}")


def size(folder: Path) -> int:
    """Returns the bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

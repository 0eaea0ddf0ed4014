"""The table of the official code's options in docs/experiments.md: what it names exists here."""

import dataclasses
import re
from pathlib import Path

import block_recurrent.config as configuration

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "docs" / "experiments.md").read_text().split("\n## Options of the official code\n")[1]


def test_every_field_that_the_table_names_exists():
    named = set(re.findall(r"`(\w+Config)\.(\w+)", SECTION))
    ours = {name: getattr(configuration, name) for name, _ in named if hasattr(configuration, name)}
    assert len(ours) == 7
    fields = {(name, field.name) for name, config in ours.items() for field in dataclasses.fields(config)}
    official = {(name, field) for name, field in named if name not in ours}
    assert {name for name, _ in official} == {"AdafactorConfig", "DataPipelineConfig"}
    assert named - official <= fields


def test_every_model_option_with_an_official_counterpart_is_in_the_table():
    named = {field for name, field in re.findall(r"`(\w+Config)\.(\w+)", SECTION) if name == "ModelConfig"}
    ours_alone = {"gate_equations", "gate_init_bias", "remat", "scan_layers", "loss_chunk", "attention_kernel"}
    assert {field.name for field in dataclasses.fields(configuration.ModelConfig)} == named | ours_alone


def test_every_gin_file_and_folder_that_the_table_names_exists():
    for name in re.findall(r"`(gin/[\w/*.]+)`", SECTION):
        found = list(ROOT.glob(name.rstrip("/")))
        assert found, name


def test_every_row_says_where_the_option_is_or_why_not():
    rows = [line for line in SECTION.splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    for row in rows:
        option, here = (cell.strip() for cell in row.strip("|").split(" | ", 1))
        assert option
        assert here
        if here.startswith("not supported"):
            assert re.match(r"not supported(, because|[:;.] | \(|; see| in training)", here), row

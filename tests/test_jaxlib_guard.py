"""The products that jaxlib 0.10.2 computes wrongly on CPU are right, however the program starts."""

import json
import os
import subprocess
import sys
import textwrap
from importlib import metadata
from types import SimpleNamespace

import pytest

from block_recurrent import jaxlib_guard

# Sums of squares of a product with a constant operand (jax-ml/jax#39103), as ratios to float64.
PRODUCTS = """
import json
import jax, jax.numpy as jnp, numpy as np

errors = {}
for rows, columns in [(32769, 32), (32768, 32), (65536, 8), (1024, 1024)]:
    x = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    function = jax.jit(lambda x: jnp.sum(jnp.square(x @ jnp.ones((x.shape[1], 32)))))
    right = np.sum(np.square(x.astype(np.float64) @ np.ones((columns, 32))))
    errors[f"{rows} x {columns}"] = float(function(x)) / right - 1
print(json.dumps(errors))
"""
LIBRARY = "from block_recurrent import BlockRecurrentLM\n" + PRODUCTS
# A command that computes the products where it would score a text.
COMMAND = (
    "import sys\nfrom block_recurrent.cli import main, score\n"
    "def command() -> None:\n" + textwrap.indent(PRODUCTS, "    ") + "\n"
    "app = main.typer.Typer()\napp.command()(command)\nmain.app = app\nsys.argv = ['block_recurrent']\nmain.main()\n"
)
CHILD = f"import block_recurrent, subprocess, sys\nsubprocess.run([sys.executable, '-c', {LIBRARY!r}], check=True)"


@pytest.mark.parametrize("program", [LIBRARY, COMMAND, CHILD], ids=["library", "command", "child"])
def test_products_are_right(program):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    errors = json.loads(done.stdout.splitlines()[-1])
    assert len(errors) == 4
    for shape, error in errors.items():
        assert abs(error) < 1e-5, (shape, error)


def pretend(monkeypatch: pytest.MonkeyPatch, version: str, flags: str | None) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version)
    if flags is None:
        monkeypatch.delenv("XLA_FLAGS", raising=False)
    else:
        monkeypatch.setenv("XLA_FLAGS", flags)


def test_the_wrong_version_gets_a_flag_before_jax_starts(monkeypatch):
    monkeypatch.delitem(sys.modules, "jax._src.xla_bridge", raising=False)
    pretend(monkeypatch, "0.10.2", "--xla_cpu_enable_fast_math=false")
    jaxlib_guard.switch_off_wrong_fusions()
    assert os.environ["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=false --xla_cpu_experimental_ynn_fusion_type="


def test_a_value_of_the_users_own_stays(monkeypatch):
    own = "--xla_cpu_experimental_ynn_fusion_type=individual_dot"
    pretend(monkeypatch, "0.10.2", own)
    jaxlib_guard.switch_off_wrong_fusions()
    assert os.environ["XLA_FLAGS"] == own


@pytest.mark.parametrize("version", ["0.10.1", "0.10.3", "0.11.0"])
def test_other_versions_are_left_alone(monkeypatch, version):
    pretend(monkeypatch, version, None)
    jaxlib_guard.switch_off_wrong_fusions()
    assert "XLA_FLAGS" not in os.environ


def test_after_the_start_there_is_one_warning_with_the_line_to_add(monkeypatch):
    pretend(monkeypatch, "0.10.2", None)
    started = SimpleNamespace(backends_are_initialized=lambda: True)
    monkeypatch.setitem(sys.modules, "jax._src.xla_bridge", started)
    with pytest.warns(UserWarning, match="os.environ\\['XLA_FLAGS'\\] = '--xla_cpu_experimental_ynn_fusion_type='"):
        jaxlib_guard.switch_off_wrong_fusions()


def test_the_requirements_exclude_the_wrong_version():
    (jax,) = (line for line in metadata.requires("block-recurrent") or [] if line.split(";")[0].startswith("jax!="))
    assert "!=0.10.2" in jax

"""Missing devices, libraries and memory: one message that names the remedy."""

import errno
import importlib
import importlib.util
import sys

import jax
import pytest

from block_recurrent.aot.topology import Topology
from block_recurrent.cli.environment import explain
from block_recurrent.errors import InputError


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("libtpu", "[tpu]'"),
        ("apache_beam", "[beam]'"),
        ("tensorflow_datasets", "[data]'"),
        ("flatbuffers", "pip install flatbuffers"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(monkeypatch, module, words):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as raised:
        importlib.import_module(module)
    assert words in (explain(raised.value) or "")


def test_a_missing_library_for_remote_folders_is_named(monkeypatch):
    from etils import epath

    for module in ("gcsfs", "tensorflow"):
        monkeypatch.setitem(sys.modules, module, None)
    error = ImportError("Please install gcsfs to access Google Storage")
    assert "[gcs]'" in (explain(error) or "")
    assert epath


@pytest.mark.parametrize(("platform", "extra"), [("tpu", "[tpu]"), ("cuda", "[cuda]")])
def test_a_missing_device_is_named_with_its_extra(monkeypatch, platform, extra):
    monkeypatch.setenv("JAX_PLATFORMS", platform)
    error = RuntimeError(f"Unable to initialize backend '{platform}': INTERNAL: none\nmore")
    message = explain(error) or ""
    assert f"JAX_PLATFORMS={platform}" in message
    assert f"{extra}'" in message
    assert "\n" not in message


def test_the_bare_assertion_of_jax_is_a_missing_device(monkeypatch):
    from jax._src import xla_bridge

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    failing = compile("assert False", xla_bridge.__file__, "exec")
    with pytest.raises(AssertionError) as raised:
        exec(failing)
    assert "JAX_PLATFORMS=cuda" in (explain(raised.value) or "")
    assert explain(AssertionError()) is None


def test_too_little_memory_is_named():
    assert "DataConfig.batch_size" in (explain(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out")) or "")
    assert "not enough memory" in (explain(MemoryError()) or "")
    assert explain(ValueError("something else")) is None


def test_topologies_need_libtpu(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"\[tpu\]"):
        Topology.parse("v4:2x2x1").devices()


def test_an_error_of_remote_storage_is_one_line():
    class HttpError(Exception):
        pass

    HttpError.__module__ = "gcsfs.retry"
    for error in (HttpError("Could not resolve host\n when reading gs://b/x"), OSError("gs://b/x: no access")):
        message = explain(error) or ""
        assert message.startswith("remote storage (")
        assert "gs://b/x" in message
        assert "\n" not in message


def test_a_file_that_cannot_be_used_is_named():
    error = FileNotFoundError(errno.ENOENT, "No such file or directory", "/nowhere/at/all")
    assert explain(error) == "/nowhere/at/all: No such file or directory"

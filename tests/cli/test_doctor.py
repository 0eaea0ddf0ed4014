"""`doctor`: each fault is found, and its remedy names a command."""

import os
from importlib import metadata

import jax

from block_recurrent.cli import doctor
from tests.cli.test_main import command  # noqa: F401


def by_name():
    return {check.name: check for check in doctor.checks()}


def test_a_sound_installation_has_no_problem(command, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, out, _ = command("doctor")
    assert code == 0, out
    found = by_name()
    assert f"jax {jax.__version__}" in found["libraries"].value
    assert str(len(jax.devices())) in found["devices"].value
    assert str(tmp_path) in found["compilation cache"].value
    for check in found.values():
        assert check.name in out
        assert (check.verdict == "ok") == (not check.remedy)


def test_versions_that_are_wrong_old_or_missing(command, monkeypatch):  # noqa: F811
    own = metadata.version

    def version(name):
        if name == "optax":
            raise metadata.PackageNotFoundError(name)
        return {"jaxlib": "0.10.2", "flax": "0.1.0", "gcsfs": "0"}.get(name) or own(name)

    monkeypatch.setattr(metadata, "version", version)
    found = by_name()
    assert found["jaxlib"].verdict == found["requirements"].verdict == "problem"
    assert "jax!=0.10.2" in found["jaxlib"].remedy
    assert "optax (not installed" in found["requirements"].value
    assert "flax (0.1.0" in found["requirements"].value
    assert "jaxtyping" not in found["requirements"].value
    assert "jaxlib 0.10.2 (tested" in found["tested versions"].value
    code, out, _ = command("doctor")
    assert code == 1
    assert "2 problem(s)" in out


def test_a_missing_extra_is_a_note_with_its_command(monkeypatch):
    own = metadata.version

    def version(name):
        if name in ("seqio", "libtpu"):
            raise metadata.PackageNotFoundError(name)
        return own(name)

    monkeypatch.setattr(metadata, "version", version)
    found = by_name()
    for extra, library in (("data", "seqio"), ("tpu", "libtpu")):
        assert found[f"extra {extra}"].verdict == "note"
        assert library in found[f"extra {extra}"].value
        assert f"[{extra}]" in found[f"extra {extra}"].remedy


def test_no_device_is_a_problem(monkeypatch):
    def devices():
        raise RuntimeError("Unable to initialize backend 'tpu'\nmore")

    monkeypatch.setattr(jax, "devices", devices)
    assert by_name()["devices"] == doctor.Check(
        "devices", "Unable to initialize backend 'tpu'", "problem", by_name()["devices"].remedy
    )


def test_folders_that_cannot_be_written(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    found = by_name()
    assert found["compilation cache"].verdict == "problem"
    assert "--no-compilation-cache" in found["compilation cache"].remedy
    assert found["working directory"].verdict == "ok"


def test_threads_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)  # not on every system
    assert by_name()["threads"].value.startswith("1 of ")

"""Compiler options: programs without gradients compile faster on CPU, unless the user has chosen."""

from block_recurrent.parallel.compiler_options import compiler_options

LEVEL = "xla_backend_optimization_level"


def test_programs_without_gradients_take_fewer_optimisations(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert compiler_options("cpu", forward_only=True) == compiler_options("cpu") | {LEVEL: 1}
    assert LEVEL not in compiler_options("cpu")
    assert compiler_options("tpu", forward_only=True) == compiler_options("tpu")
    assert compiler_options("cuda", forward_only=True) == {}


def test_the_users_own_level_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{LEVEL}=0")
    assert compiler_options("cpu", forward_only=True) == compiler_options("cpu")

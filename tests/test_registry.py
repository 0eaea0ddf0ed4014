"""Names of classes: who may register which, and the error about a file with an unknown module."""

import pytest

from block_recurrent.errors import InputError
from block_recurrent.registry import Registry, check_modules, import_modules


class Square:
    def area(self):
        return 1


class Shapeless:
    pass


@pytest.fixture
def registry() -> Registry:
    return Registry("Picture.shape", "shape", ("circle",), requires=("area",))


def test_a_registered_class_is_found_and_knows_its_module(registry):
    assert registry.register("square")(Square) is Square
    assert registry.names == ("circle", "square")
    assert registry.get("square") is Square
    assert registry.module_of("square") == Square.__module__
    assert registry.module_of("circle") is None


@pytest.mark.parametrize(
    ("name", "cls", "message"),
    [
        ("circle", Square, "shape 'circle' of .*Square: the name of a built-in shape"),
        ("a square", Square, "must be a Python identifier, such as my_shape"),
        ("other", Shapeless, "the class must define area"),
    ],
)
def test_what_cannot_be_registered(registry, name, cls, message):
    with pytest.raises(InputError, match=message):
        registry.register(name)(cls)


def test_a_name_belongs_to_one_module_and_after_its_use_to_one_class(registry):
    registry.register("square")(Square)
    registry.register("square")(type("Square", (Square,), {"__module__": Square.__module__}))  # a notebook's cell again
    with pytest.raises(InputError, match="has registered this name already"):
        registry.register("square")(type("Square", (Square,), {"__module__": "elsewhere"}))
    registry.get("square")
    with pytest.raises(InputError, match="is in use already; restart Python"):
        registry.register("square")(Square)


def test_an_unknown_name_lists_the_known_ones(registry):
    with pytest.raises(
        InputError, match=r"Picture.shape = 'blob': must be one of 'circle', or a shape of .* \(--import"
    ):
        registry.get("blob")


def test_a_file_that_names_a_module_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        InputError, match=r"run.json: ModelConfig.gate = 'odd' is defined in the module stranger, which"
    ):
        check_modules({"gate": "odd"}, {"gate": "stranger"}, "run.json")
    with pytest.raises(InputError, match="module stranger, but this package defines it here"):
        check_modules({"gate": "fixed"}, {"gate": "stranger"}, "run.json")


def test_a_module_that_is_missing_or_fails_is_one_error(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="--import absent_gate: no such module; put its folder on PYTHONPATH"):
        import_modules(["absent_gate"])
    (tmp_path / "broken_gate.py").write_text("1 / 0")
    with pytest.raises(InputError, match="--import broken_gate: fails: ZeroDivisionError"):
        import_modules(["broken_gate"])

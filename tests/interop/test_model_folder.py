"""Names of models: the packaged ones, folders, and the files that the wheel carries."""

import re
import shutil
from pathlib import Path

import pytest
import setuptools
from etils import epath
from setuptools import Distribution

from block_recurrent.errors import InputError
from block_recurrent.interop import model_folder
from block_recurrent.interop.model_folder import is_read_only, packaged_models
from block_recurrent.interop.model_folder import model_folder as find
from tests.support.model_folders import LARGEST, check_complete, size

ROOT = Path(__file__).parents[2]
FILES = ("README.md", "config.json", "params.safetensors", "evaluation/store/test/step_2/scores.json")


def make_model(folder: Path) -> Path:
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A folder of packaged models, and a working directory."""
    monkeypatch.setattr(model_folder, "PACKAGED", epath.Path(tmp_path / "package"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "package"


def test_an_installation_without_models_says_so(packaged):
    assert packaged_models() == []
    with pytest.raises(InputError, match=r"--model sample: .*this installation has no packaged model"):
        find("sample")


def test_a_packaged_name_comes_before_a_folder_with_that_name(packaged, tmp_path):
    own = make_model(tmp_path / "work" / "sample")
    assert find("sample") == epath.Path(own)  # nothing is packaged yet
    ours = make_model(packaged / "sample")
    (packaged / "notes").mkdir()  # not a model
    assert packaged_models() == ["sample"]
    assert find("sample") == epath.Path(ours)
    assert is_read_only("sample", find("sample"))
    for folder in ("./sample", own, str(own)):
        assert find(folder) == epath.Path(own)
        assert not is_read_only(folder, find(folder))


def test_an_unknown_name_lists_the_packaged_models(packaged):
    make_model(packaged / "sample")
    make_model(packaged / "large")
    with pytest.raises(InputError, match=re.escape("--model smaple: no model has this name")) as raised:
        find("smaple")
    assert "packaged models: large, sample" in str(raised.value)


def test_the_wheel_carries_the_packaged_models(tmp_path, monkeypatch):
    """With the `setup.py` of this repository, in a copy of its layout; setuptools adds the same files to the sdist."""
    for name in ("setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "gin").mkdir()
    make_model(tmp_path / "block_recurrent" / "sample_model" / "sample")
    (tmp_path / "block_recurrent" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    arguments: dict = {}
    monkeypatch.setattr(setuptools, "setup", arguments.update)
    exec((tmp_path / "setup.py").read_text(), {"__name__": "__main__"})
    command = Distribution(arguments).get_command_obj("build_py")
    command.ensure_finalized()
    carried = {f"{source}/{name}" for _, source, _, names in command.data_files for name in names}
    assert carried >= {f"block_recurrent/sample_model/sample/{name}" for name in FILES}


@pytest.mark.parametrize("name", packaged_models() or [None])
def test_a_packaged_model_is_complete_and_small(name):
    if name is None:
        pytest.skip("no model is packaged")
    folder = Path(find(name))
    assert size(folder) <= LARGEST
    check_complete(folder)

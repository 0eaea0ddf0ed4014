"""Models on the Hugging Face hub, with a hub that is a local folder."""

import fnmatch
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from block_recurrent.errors import InputError
from block_recurrent.interop import hub
from block_recurrent.interop.model_folder import PACKAGED
from tests.support.commands import run_command


class FakeHub(types.ModuleType):
    """The functions of `huggingface_hub` that are used, on a folder of repositories."""

    def __init__(self, folder: Path, user: str | None = "me"):
        super().__init__("huggingface_hub")
        self.folder, self.user = folder, user
        self.created: dict[str, Any] = {}
        self.HfApi = lambda: self

    def snapshot_download(self, name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        source, target = self.folder / name / (revision or "main"), self.folder / "cache" / name
        if not source.is_dir():
            raise OSError(f"404 Client Error: {name}\nmore lines")
        shutil.rmtree(target, ignore_errors=True)
        for path in source.rglob("*"):
            relative = path.relative_to(source)
            if path.is_file() and any(fnmatch.fnmatch(str(relative), pattern) for pattern in allow_patterns):
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target / relative)
        return str(target)

    def whoami(self) -> dict[str, str]:
        if self.user is None:
            raise PermissionError("401: no token")
        return {"name": self.user}

    def create_repo(self, name: str, *, repo_type: str, private: bool, exist_ok: bool) -> None:
        assert (repo_type, exist_ok) == ("model", True)
        self.created[name] = private

    def upload_folder(self, *, repo_id: str, folder_path: str, repo_type: str, commit_message: str) -> Any:
        shutil.copytree(folder_path, self.folder / repo_id / "main")
        return types.SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


@pytest.fixture
def fake(tmp_path, monkeypatch) -> FakeHub:
    module = FakeHub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


SAMPLED = ("--prompt", "def ", "--num-tokens", 4, "--seed", 1, "--jsonl", "-")


def test_an_export_that_was_pushed_is_used_by_its_address(fake, byte_run, tmp_path):
    ended = run_command("export", "--workdir", byte_run, "--out", tmp_path / "out", "--push-to", "me/tiny")
    assert ended.code == 0, ended.err
    assert "uploaded: https://hub/me/tiny/commit/1" in ended.out
    assert fake.created == {"me/tiny": True}  # private
    (fake.folder / "me" / "tiny" / "main" / "code.py").write_text("raise SystemExit")
    ours = run_command("generate", "--model", "hf://me/tiny", *SAMPLED)
    assert ours.code == 0, ours.err
    assert ours.out == run_command("generate", "--model", tmp_path / "out", *SAMPLED).out
    assert not (fake.folder / "cache" / "me" / "tiny" / "code.py").exists()
    ended = run_command("evaluate", "--model", "hf://me/tiny", "--gin-param", "DataConfig.store='anywhere'")
    assert ended.code == 2
    assert "name a folder with --out" in " ".join(ended.err.split())


def test_a_revision_is_another_version(fake):
    shutil.copytree(PACKAGED / "sample", fake.folder / "me" / "sample" / "v1")
    folder = hub.download(hub.HubModel.parse("hf://me/sample@v1", "--model"))
    assert (folder / "config.json").exists()
    assert list(Path(folder).glob("evaluation/**/scores.json")), "the results come with the model"
    with pytest.raises(
        InputError, match=r"--model hf://me/sample: cannot be downloaded: 404 Client Error: me/sample \("
    ):
        hub.download(hub.HubModel("me/sample"))


@pytest.mark.parametrize("address", ["hf://sample", "hf://a/b/c", "hf://me/x@", "hf://me/a b"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match="must be OWNER/NAME or OWNER/NAME@REVISION"):
        hub.HubModel.parse(address, "--model")


def test_a_repository_without_an_export_is_refused(fake):
    (fake.folder / "me" / "text" / "main").mkdir(parents=True)
    (fake.folder / "me" / "text" / "main" / "README.md").write_text("text")
    ended = run_command("generate", "--model", "hf://me/text", *SAMPLED)
    assert ended.code == 2
    assert "hf://me/text: not a model of this program (config.json is missing)" in ended.err


def test_an_upload_is_checked_before_anything_is_written(fake, byte_run, tmp_path):
    fake.user = None
    for push_to, message in {
        "me/tiny": "the Hugging Face hub refuses: 401: no token; log in",
        "tiny": "--push-to tiny: must be OWNER/NAME",
        "me/tiny@v1": "the main branch is updated",
    }.items():
        ended = run_command("export", "--workdir", byte_run, "--out", tmp_path / "out", "--push-to", push_to)
        assert ended.code == 2
        assert message in ended.err
    assert not (tmp_path / "out").exists()


def test_without_the_extra_one_error_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    ended = run_command("generate", "--model", "hf://me/tiny", *SAMPLED)
    assert ended.code == 2
    assert "[hub]'" in ended.err

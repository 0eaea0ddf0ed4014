"""Packaging: wheel and sdist carry every file that the program reads, and versions and lists agree with each other."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
# The builds change `sys.argv`.
BUILD = "import setuptools.build_meta as b, sys; out = sys.argv[1]; b.build_sdist(out); b.build_wheel(out)"


def files_of_git() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def version() -> str:
    (found,) = re.findall(r'^    version="(.*)",$', (ROOT / "setup.py").read_text(), re.MULTILINE)
    return found


def test_the_version_has_its_section_of_the_changelog_and_its_citation():
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == version()
    assert sections == sorted(sections, key=lambda v: tuple(map(int, v.split("."))), reverse=True)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version()
    assert citation["preferred-citation"]["title"] == "Block-Recurrent Transformers"


def test_the_workflow_runs_what_ci_runs():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    targets = re.findall(r"^make (\S+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"]["target"] == targets
    assert job["steps"][-1]["run"] == "make ${{ matrix.target }}"
    rows = re.findall(r"^\| `make (\S+)` \|.*\| \d+ \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert rows == targets


def test_issue_templates_are_forms():
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) >= 3
    for form in forms:
        content = yaml.safe_load(form.read_text())
        if form.name != "config.yml":
            assert {"name", "description", "body"} <= content.keys()
            assert all(field["attributes"]["label"] for field in content["body"])


def test_every_target_is_phony_and_explained():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert targets == set(phony.split())
    for target in targets:
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), f"{target}: `make help` does not list it"


def test_the_core_of_the_tests_exists():
    (core,) = re.findall(r"^CORE_TESTS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert core.split()
    assert [path for path in core.split() if not (ROOT / path).exists()] == []


@pytest.mark.slow
def test_wheel_and_sdist_carry_the_files_that_the_program_reads(tmp_path):
    """The wheel of the checkout and that of the unpacked sdist have the same files."""
    wheels = []
    copy = tmp_path / "checkout"
    for name in files_of_git():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    for source in (copy, tmp_path / "unpacked" / f"block_recurrent-{version()}"):
        out = tmp_path / f"out_{source.name}"
        out.mkdir()
        subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=source, check=True, capture_output=True)
        (sdist,) = out.glob("*.tar.gz")
        (wheel,) = out.glob("*.whl")
        wheels.append(set(zipfile.ZipFile(wheel).namelist()))
        with tarfile.open(sdist) as archive:
            archive.extractall(tmp_path / "unpacked", filter="data")
    assert wheels[0] == wheels[1]
    carried = {name for name in files_of_git() if name.startswith("block_recurrent/")}
    carried |= {f"block_recurrent/{name}" for name in files_of_git() if re.fullmatch(r"gin/.*\.gin", name)}
    assert carried - wheels[0] == set()
    assert any(name.endswith("templates/page.html") for name in wheels[0])
    assert not [name for name in wheels[0] if name.startswith(("tests", "experiments"))]
    unpacked = {path.name for path in (tmp_path / "unpacked" / f"block_recurrent-{version()}").iterdir()}
    assert {"LICENSE", "README.md", "setup.py", "pyproject.toml"} <= unpacked

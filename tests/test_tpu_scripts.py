"""The launch scripts: what they would run, and that the shell reads them as they are meant."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "experiments" / "tpu"
SCRIPT = FOLDER / "tpu.sh"
SLICE = {"ZONE": "us-central2-b", "TYPE": "v4-32", "PROJECT": "mine", "NAME": "slice"}


def dry_run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DRY_RUN": "1"} | SLICE | settings
    return subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False)


def commands(*arguments: str, **settings: str) -> list[list[str]]:
    done = dry_run(*arguments, **settings)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line.replace("$'", "'"))[1:] for line in done.stdout.splitlines() if line.startswith("+ ")]


def test_create_asks_for_the_slice_with_its_runtime():
    (create,) = commands("create", SPOT="1")
    assert create[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "slice"]
    assert {"--node-id=slice", "--accelerator-type=v4-32", "--spot", "--zone=us-central2-b", "--project=mine"} <= {
        *create
    }
    assert "--runtime-version=tpu-ubuntu2204-base" in create
    assert "--runtime-version=v2-alpha-tpuv6e" in commands("create", TYPE="v6e-16")[0]
    assert "--runtime-version=other" in commands("create", RUNTIME="other")[0]


def test_train_runs_the_same_command_on_every_host():
    flags = [
        "--gin_file",
        "gin/runs/quickstart.gin",
        "--gin_param",
        "DataConfig.store='gs://b/s'",
        "--workdir",
        "gs://b/r",
    ]
    (train,) = commands("train", *flags)
    assert train[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "slice"]
    assert "--worker=all" in train
    (sent,) = [argument.removeprefix("--command=") for argument in train if argument.startswith("--command=")]
    started = shlex.split(sent)
    first = started.index("block_recurrent")
    assert started[first - 1 : first + 2] == ["-m", "block_recurrent", "train"]
    assert started[first + 2 : first + 2 + len(flags)] == flags


def test_the_rest_of_a_slices_life():
    archive, copy, _, install = commands("install")
    assert archive[:2] == ["git", "archive"]
    assert {"scp", "--worker=all"} <= {*copy}
    assert "--worker=all" in install
    assert "pkill -TERM" in " ".join(commands("stop")[0])
    assert commands("fetch", "gs://b/r", "here")[1][:4] == ["gcloud", "storage", "rsync", "--recursive"]
    assert commands("delete")[0][3:6] == ["queued-resources", "delete", "slice"]
    assert [line[4] for line in commands("supervise", "--workdir", "gs://b/r") if line[0] == "gcloud"] == [
        "scp",
        "ssh",
        "ssh",
    ]


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["create"], {"ZONE": ""}, "ZONE is not set"),
        (["create"], {"TYPE": "v9-8"}, "TYPE=v9-8: no runtime is known"),
        (["train", "--workdir", "/tmp/run"], {}, "--workdir must be on gs://"),
        (["train"], {}, "give the arguments"),
        (["fetch", "here"], {}, "give a workdir on gs://"),
        (["lanuch"], {}, "lanuch: no such command"),
    ],
)
def test_mistakes_are_one_line(arguments, settings, message):
    done = dry_run(*arguments, **settings)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shellcheck is not None
    subprocess.run([shellcheck, SCRIPT, FOLDER.parent.parent / ".ci" / "run"], check=True)

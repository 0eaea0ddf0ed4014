"""The launch scripts: the commands they print, their behaviour with a fake slice, and shellcheck."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from block_recurrent.aot.topology import Topology
from block_recurrent.cli import gin_files

FOLDER = Path(__file__).parents[3] / "experiments" / "tpu"
SCRIPT = FOLDER / "tpu.sh"
SLICE = {"ZONE": "us-central2-b", "TYPE": "v4-32", "PROJECT": "mine", "NAME": "slice"}


def dry_run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DRY_RUN": "1"} | SLICE | settings
    return subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False)


def commands(*arguments: str, **settings: str) -> list[list[str]]:
    done = dry_run(*arguments, **settings)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line.replace("$'", "'"))[1:] for line in done.stdout.splitlines() if line.startswith("+ ")]


def test_create_requests_the_slice_with_its_runtime():
    (create,) = commands("create", SPOT="1")
    assert create[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "slice"]
    assert {"--node-id=slice", "--accelerator-type=v4-32", "--spot", "--zone=us-central2-b", "--project=mine"} <= {
        *create
    }
    assert "--runtime-version=tpu-ubuntu2204-base" in create
    assert "--runtime-version=v2-alpha-tpuv6e" in commands("create", TYPE="v6e-16")[0]
    assert "--runtime-version=other" in commands("create", RUNTIME="other")[0]


def test_create_passes_account_network_and_reservation():
    (create,) = commands(
        "create", RESERVED="1", SERVICE_ACCOUNT="a@mine.iam.gserviceaccount.com", NETWORK="n", SUBNETWORK="s"
    )
    assert {
        "--reserved",
        "--service-account=a@mine.iam.gserviceaccount.com",
        "--network=n",
        "--subnetwork=s",
    } <= {*create}
    (plain,) = commands("create")
    assert not any(word.startswith(("--reserved", "--service", "--network", "--internal")) for word in plain)
    assert "--internal-ips" in commands("create", INTERNAL_IPS="1")[0]
    assert "--tunnel-through-iap" in commands("stop", INTERNAL_IPS="1")[0]


@pytest.mark.parametrize("name", ["train", "evaluate", "compare", "score", "generate"])
@pytest.mark.parametrize("workdir", [["--workdir", "gs://b/r"], ["--workdir=gs://b/r"]])
def test_a_command_runs_on_every_host(name, workdir):
    flags = ["--gin-file", "gin/runs/quickstart.gin", "--gin-param", "DataConfig.store='gs://b/s'", *workdir]
    (train,) = commands(name, *flags)
    assert train[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "slice"]
    assert "--worker=all" in train
    (remote,) = [argument.removeprefix("--command=") for argument in train if argument.startswith("--command=")]
    started = shlex.split(remote)
    first = started.index("block_recurrent")
    assert started[first - 1 : first + 2] == ["-m", "block_recurrent", name]
    assert " ".join(started[first + 2 :]).startswith(" ".join(flags) + "; ")


def test_the_other_commands_call_gcloud():
    archive, copy, _, install = commands("install")
    assert archive[:2] == ["python3", "experiments/tpu/pack.py"]
    assert {"scp", "--worker=all"} <= {*copy}
    assert "--worker=all" in install
    assert "pkill -TERM" in " ".join(commands("stop")[0])
    assert commands("fetch", "gs://b/r", "here")[1][:4] == ["gcloud", "storage", "rsync", "--recursive"]
    assert commands("delete")[0][3:6] == ["queued-resources", "delete", "slice"]
    supervised = commands("supervise", "--workdir", "gs://b/r")
    assert [line[4] for line in supervised if line[0] == "gcloud"] == ["create", "scp", "ssh", "ssh"]


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["create"], {"ZONE": ""}, "ZONE is not set"),
        (["create"], {"TYPE": "v9-8"}, "TYPE=v9-8: no runtime is known"),
        (["train", "--workdir", "/tmp/run"], {}, "--workdir must be on gs://"),
        (["train"], {}, "give the arguments"),
        (["train", "--gin-file", "x"], {}, "train: give --workdir gs://"),
        (["train", "--workdir=/tmp/run"], {}, "--workdir must be on gs://"),
        (["evaluate", "--workdir", "gs://b/r", "--out=here"], {}, "evaluate: --out must be on gs://"),
        (["create"], {"TYPE": "tpu7x-16"}, "TPU7x slices exist on GKE only"),
        (["supervise", "--workdir", "/tmp/run"], {}, "--workdir must be on gs://"),
        (["supervise", "--workdir", "gs://b/r"], {"TYPE": ""}, "TYPE is not set"),
        (["fetch", "here"], {}, "give a workdir on gs://"),
        (["lanuch"], {}, "lanuch: no such command"),
    ],
)
def test_a_mistake_prints_one_line(arguments, settings, message):
    done = dry_run(*arguments, **settings)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


# Replaces training: records its arguments and waits for an exit code or a signal.
TRAINING = """
import json, os, pathlib, signal, sys, time
home = pathlib.Path(os.environ["HOME"])
with open(home / "starts", "a") as starts:
    starts.write(json.dumps([sys.argv[1:], os.environ["JAX_COMPILATION_CACHE_DIR"]]) + "\\n")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
while not (home / "end").exists():
    time.sleep(0.02)
code = (home / "end").read_text()
(home / "end").unlink()
sys.exit(int(code))
"""
FLAGS = ["--gin-param", "DataConfig.store='gs://b/a store'", "--workdir", "gs://b/r"]


class Cloud:
    """A checkout and a slice of two hosts, all of them folders; `gcloud`, `sleep` and the hosts' Python are fakes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.hosts = folder, (folder / "host_0", folder / "host_1")
        self.exits = [host / "train.exit" for host in self.hosts]
        self._write_checkout(folder / "checkout")
        programs = {
            "gcloud": f'exec {sys.executable} {Path(__file__).parents[2]}/support/fake_gcloud.py "$@"',
            "sleep": "exec /bin/sleep 0.05",
            "python3": f'case "$*" in "-m uv venv"*) mkdir -p block_recurrent_venv/bin &&'
            f' cp {folder}/bin/python block_recurrent_venv/bin/;; *pack.py*) exec {sys.executable} "$@";; esac',
            "python": f'[[ "$1" == -c ]] || exec -a "$0" {sys.executable} "$@"',
        }
        (folder / "bin").mkdir()
        for name, text in programs.items():
            (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
            (folder / "bin" / name).chmod(0o755)

    def _write_checkout(self, checkout: Path) -> None:
        shutil.copytree(FOLDER, checkout / "experiments" / "tpu", ignore=shutil.ignore_patterns("compile_*"))
        (checkout / "block_recurrent").mkdir()
        (checkout / "block_recurrent" / "__main__.py").write_text(TRAINING)
        author = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
        for words in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "-m", "code"]):
            subprocess.run(["git", *words], cwd=checkout, check=True)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        return subprocess.Popen(
            ["experiments/tpu/tpu.sh", *arguments],
            cwd=self.folder / "checkout",
            env={"PATH": path, "HOME": str(self.folder), "CLOUD": str(self.folder)} | SLICE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> str:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        return output

    def calls(self, *words: str) -> int:
        """Returns how many calls of gcloud contained these words."""
        path = self.folder / "calls"
        return sum(set(words) <= set(line.split()) for line in path.read_text().splitlines()) if path.exists() else 0

    def starts(self) -> list[list[Any]]:
        """Returns the starts of training on each host of the current slice."""
        starts = []
        for host in self.hosts:
            try:
                starts.append([json.loads(line) for line in (host / "starts").read_text().splitlines()])
            except FileNotFoundError:  # the host or its first start does not exist
                starts.append([])
        return starts

    def end_training(self, code: int) -> None:
        for host in self.hosts:
            (host / "end").write_text(str(code))

    def reboot(self, host: Path) -> None:
        """Kills every process that runs in a host's folder, the shell that would write the exit code included."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if Path(os.readlink(process / "cwd")).is_relative_to(host):
                    os.kill(int(process.name), signal.SIGKILL)

    def preempt(self) -> None:
        (self.folder / "state").write_text("SUSPENDED\n")
        subprocess.run(["pkill", "-KILL", "-f", f"^{self.folder}/host_"], check=True)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    yield Cloud(tmp_path)
    subprocess.run(["pkill", "-KILL", "-f", f"^{tmp_path}/host_"], check=False)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_slice_is_created_used_and_deleted(cloud):
    for command in (["create"], ["install"], ["train", *FLAGS]):
        cloud.run(*command)
    once = [[["train", *FLAGS], f"{host}/jax_cache"] for host in cloud.hosts]
    wait_for(lambda: cloud.starts() == [[first] for first in once])
    cloud.run("train", *FLAGS)  # training runs already; nothing is started
    assert "nothing runs here" not in cloud.run("status")
    cloud.run("stop")
    wait_for(lambda: all(exits.exists() and exits.read_text() for exits in cloud.exits))
    assert [exits.read_text() for exits in cloud.exits] == ["75\n", "75\n"]
    assert cloud.starts() == [[first] for first in once]
    assert cloud.run("status").splitlines().count("nothing runs here") == 2
    assert cloud.run("stop").splitlines().count("nothing runs here") == 2
    cloud.run("delete")
    assert not (cloud.folder / "state").exists()


def test_an_evaluation_runs_on_the_hosts_as_training_does(cloud):
    for command in (["create"], ["install"], ["evaluate", "--workdir=gs://b/r", "--split", "test"]):
        cloud.run(*command)
    wait_for(lambda: [len(times) for times in cloud.starts()] == [1, 1])
    assert cloud.starts()[0][0][0] == ["evaluate", "--workdir=gs://b/r", "--split", "test"]
    cloud.run("train", *FLAGS)  # waits for no turn: the evaluation still runs
    assert [len(times) for times in cloud.starts()] == [1, 1]
    assert "nothing runs here" not in cloud.run("status")
    cloud.run("stop")


def test_install_ships_the_working_tree_and_says_what_it_leaves(cloud):
    """Uncommitted changes and new files arrive; deleted and ignored files do not."""
    checkout = cloud.folder / "checkout"
    (checkout / "block_recurrent" / "__main__.py").write_text("changed")
    (checkout / "new run.gin").write_text("x = 1")
    (checkout / "vocabulary.model").write_bytes(b"pieces")
    (checkout / ".gitignore").write_text("/prepared/\n")
    (checkout / "prepared").mkdir()
    (checkout / "prepared" / "tokens").write_text("many")
    (checkout / "experiments" / "tpu" / "jobset.yaml").unlink()
    cloud.run("create")
    output = cloud.run("install")
    assert "left out, because git ignores them: prepared/" in output
    for host in cloud.hosts:
        code = host / "block_recurrent_code"
        assert (code / "block_recurrent" / "__main__.py").read_text() == "changed"
        assert (code / "new run.gin").exists()
        assert (code / "vocabulary.model").read_bytes() == b"pieces"
        assert not (code / "prepared").exists()
        assert not (code / "experiments" / "tpu" / "jobset.yaml").exists()


def test_install_refuses_raw_data_among_the_new_files(cloud):
    with open(cloud.folder / "checkout" / "books.txt", "wb") as file:
        file.truncate(101 * 10**6)
    cloud.run("create")
    process = cloud.start("install")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "new files that git does not ignore take 101 MB" in output
    assert "books.txt" in output
    assert cloud.calls("scp") == 0


def test_a_supervised_run_continues_after_preemption_and_after_being_stopped(cloud):
    watching = cloud.start("supervise", *FLAGS)
    wait_for(lambda: [len(times) for times in cloud.starts()] == [1, 1])
    cloud.end_training(75)
    wait_for(lambda: [len(times) for times in cloud.starts()] == [2, 2])
    cloud.preempt()
    wait_for(lambda: cloud.calls("create") == 2 and [len(times) for times in cloud.starts()] == [1, 1])
    cloud.end_training(0)
    output, _ = watching.communicate(timeout=30)
    assert watching.returncode == 0, output
    assert "SUSPENDED; requesting another slice" in output
    assert "training has ended" in output
    assert cloud.calls("delete") == 1


def test_a_run_continues_after_a_host_has_rebooted(cloud):
    """The slice stays active: one host runs nothing and has no exit code, the other waits for it."""
    watching = cloud.start("supervise", *FLAGS)
    wait_for(lambda: [len(times) for times in cloud.starts()] == [1, 1])
    cloud.reboot(cloud.hosts[1])
    wait_for(lambda: [len(times) for times in cloud.starts()] == [2, 2])
    cloud.end_training(0)
    output, _ = watching.communicate(timeout=30)
    assert watching.returncode == 0, output
    assert "a host runs nothing, as after a reboot" in output
    assert (cloud.calls("create"), cloud.calls("delete")) == (1, 0)


def test_an_unreachable_cloud_is_not_a_preemption(cloud):
    watching = cloud.start("supervise", *FLAGS)
    wait_for(lambda: [len(times) for times in cloud.starts()] == [1, 1])
    (cloud.folder / "unreachable").touch()
    queries = cloud.calls("describe")
    wait_for(lambda: cloud.calls("describe") > queries + 2)
    (cloud.folder / "unreachable").unlink()
    cloud.end_training(0)
    watching.communicate(timeout=30)
    assert watching.returncode == 0
    assert (cloud.calls("create"), cloud.calls("delete")) == (1, 0)
    assert [len(times) for times in cloud.starts()] == [1, 1]


def test_a_supervised_run_that_fails_is_not_restarted(cloud):
    watching = cloud.start("supervise", *FLAGS)
    wait_for(lambda: [len(times) for times in cloud.starts()] == [1, 1])
    cloud.end_training(3)
    output, _ = watching.communicate(timeout=30)
    assert watching.returncode == 3
    assert "training failed with exit code 3" in output
    assert [len(times) for times in cloud.starts()] == [1, 1]


def test_the_image_runs_any_command_with_the_hosts_settings(tmp_path):
    """Runs the entry point of the Dockerfile with a Python that prints its arguments."""
    line = (FOLDER / "Dockerfile").read_text().partition("\nENTRYPOINT ")[2]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@" "$JAX_COMPILATION_CACHE_DIR" $PPID\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    shutil.copy(FOLDER / "host.env", tmp_path)
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": "/home/me"}
    for settings, cache in (({}, "/home/me/jax_cache"), ({"JAX_COMPILATION_CACHE_DIR": "gs://b/c"}, "gs://b/c")):
        done = subprocess.run(
            [*json.loads(line), *FLAGS],
            cwd=tmp_path,
            env=environment | settings,
            capture_output=True,
            text=True,
            check=True,
        )
        parent = str(os.getpid())  # the shell has been replaced, so SIGTERM reaches Python
        assert done.stdout.splitlines() == ["-m", "block_recurrent", *FLAGS, cache, parent]


@pytest.mark.slow
def test_the_image_contains_all_files_that_its_installation_needs(tmp_path):
    """Builds a wheel from the files that the Dockerfile copies before it installs."""
    before, _, _ = (FOLDER / "Dockerfile").read_text().partition("\nRUN pip install")
    root, image = FOLDER.parent.parent, tmp_path / "image"
    image.mkdir()
    for line in before.splitlines():
        if line.startswith("COPY "):
            *sources, target = line.split()[1:]
            for source in sources:
                copy = shutil.copytree if (root / source).is_dir() else shutil.copy
                copy(root / source, image / target if (root / source).is_dir() else image)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(image)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {path.relative_to(root).as_posix() for path in (root / "block_recurrent").rglob("*.py")}
    experiments = {f"block_recurrent/{p.relative_to(root).as_posix()}" for p in (root / "gin").rglob("*.gin")}
    assert package | experiments <= names


def test_the_jobset_starts_one_process_on_every_host_of_its_slice():
    manifest = yaml.safe_load((FOLDER / "jobset.yaml").read_text())
    (job,) = manifest["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command, *flags = container["args"]
    assert command == "train"
    named = [flag.partition("=")[::2] for flag in flags]
    files = [value for name, value in named if name == "--gin-file"]
    gin_files.parse(files, [value for name, value in named if name == "--gin-param"])
    assert gin_files.configured_run().data.store == "gs://BUCKET/prepared/pg19_tokens"
    topology = Topology.parse(f"v6e:{pod['nodeSelector']['cloud.google.com/gke-tpu-topology']}")
    hosts = topology.num_chips // container["resources"]["limits"]["google.com/tpu"]
    assert job["template"]["spec"]["parallelism"] == job["template"]["spec"]["completions"] == hosts


def test_shellcheck_reports_nothing():
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shellcheck is not None
    subprocess.run([shellcheck, SCRIPT, FOLDER.parent.parent / ".ci" / "run"], check=True)

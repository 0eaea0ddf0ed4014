"""SIGINT, SIGTERM and a closed standard output end every long command with one line and an exit code of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from etils import epath

from block_recurrent.cli import interruption
from block_recurrent.training.loop import train
from tests.cli.test_main import MODEL
from tests.support.workdirs import QUIET, run_config

INT, TERM = signal.SIGINT, signal.SIGTERM


@pytest.fixture(scope="module")
def workdir(store_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(run_config(store_folder, num_steps=1), epath.Path(folder), QUIET)
    return folder


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Returns a function that starts a command in a process; the process is killed after the test."""
    started = []

    def start(*arguments: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "block_recurrent", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "JAX_PLATFORMS": "cpu"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[bytes], code: int) -> str:
    """Returns the one line of standard error of a process that ends with an exit code."""
    error = (process.communicate(timeout=60)[1] or b"").decode()
    assert process.returncode == code, error
    (line,) = error.splitlines()
    return line


def close_output(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None


def long_training(store: Path, workdir: Path) -> list[object]:
    fields = {f"ModelConfig.{name}": value for name, value in MODEL.items()}
    fields |= {
        "DataConfig.store": f"'{store}'",
        "DataConfig.segment_length": 16,
        "DataConfig.batch_size": 2,
        "MeshConfig.data": 1,
    }
    fields |= {"TrainConfig.num_steps": 10**6, "TrainConfig.eval_every": 20, "TrainConfig.checkpoint_every": 10**6}
    params = [word for name, value in fields.items() for word in ("--gin-param", f"{name}={value}")]
    return ["train", "--workdir", workdir, *params]


def wait_for(process: subprocess.Popen[bytes], text: bytes) -> None:
    """Reads standard output up to a line with a text."""
    assert process.stdout is not None
    assert any(text in line for line in iter(process.stdout.readline, b""))


def first_line_of(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.slow
def test_training_saves_when_nothing_reads_its_output_any_more(start, store_folder, tmp_path):
    process = start(*long_training(store_folder, tmp_path / "run"))
    wait_for(process, b"step 20:")
    close_output(process)
    line = ended(process, 141)
    assert line.startswith("stopped (nothing reads standard output): asked to stop at step ")
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("[0-9]*")
    assert f"saved at step {checkpoint.name}" in line


@pytest.mark.slow
def test_generation_ends_with_one_line(start, workdir):
    process = start("generate", "--workdir", workdir, "--prompt", "3\n", "--num-tokens", 10**8)
    first_line_of(process)
    time.sleep(1)
    process.send_signal(INT)
    assert ended(process, 130) == "stopped (SIGINT): only the printed text is kept"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(INT, 130), (TERM, 75)])
def test_training_saves_and_continues(start, store_folder, tmp_path, number, code):
    process = start(*long_training(store_folder, tmp_path / "run"))
    wait_for(process, b"step 20:")
    process.send_signal(number)
    assert "The same command continues" in ended(process, code)
    assert list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(INT, 130), (TERM, 143)])
@pytest.mark.parametrize("seconds", [1, 1.2, 1.6, 2, 3, 4])  # Python itself takes up to a second to start
def test_generation_ends_at_any_moment(start, workdir, number, code, seconds):
    process = start("generate", "--workdir", workdir, "--prompt", "3", "--num-tokens", 10**8)
    time.sleep(seconds)
    process.send_signal(number)
    assert ended(process, code).startswith(f"stopped ({signal.Signals(number).name}): ")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(INT, 130), (TERM, 75)])
def test_preparation_continues(start, tmp_path, number, code):
    (tmp_path / "texts").mkdir()
    for n in range(2000):
        (tmp_path / "texts" / f"{n}.txt").write_text(f"Text number {n}. " * 5_000)
    fields = {"source": "text_folder", "input": str(tmp_path / "texts"), "store": str(tmp_path / "store"), "workers": 1}
    params = [word for name, value in fields.items() for word in ("--gin-param", f"PrepareConfig.{name}={value!r}")]
    process = start("prepare", *params)
    while not (tmp_path / "store").exists():
        time.sleep(0.05)
        assert process.poll() is None
    time.sleep(1)
    process.send_signal(number)
    assert "the part that is done is kept; the same command continues" in ended(process, code)


@pytest.mark.slow
def test_generation_into_a_closed_pipe(start, workdir):
    process = start("generate", "--workdir", workdir, "--prompt", "3\n", "--num-tokens", 10**8)
    first_line_of(process)
    close_output(process)
    assert ended(process, 141) == "stopped (nothing reads standard output): only the printed text is kept"


@pytest.fixture
def requests(monkeypatch):
    fresh = interruption._Requests()
    monkeypatch.setattr(interruption, "_requests", fresh)
    return fresh


def test_the_exit_code_depends_on_the_signal_and_on_what_is_kept(requests):
    assert [interruption.exit_code(number) for number in (INT, TERM)] == [130, 143]
    interruption.keeps("something", resumable=True)
    assert [interruption.exit_code(number) for number in (INT, TERM)] == [130, 75]
    requests.pipe_closed = True
    assert interruption.exit_code(INT) == 141


def test_the_line_says_what_is_kept_after_cleaning_up(requests, capfd):
    steps = [1]
    interruption.keeps(lambda: f"{len(steps)} steps")
    steps.append(2)
    interruption.report(TERM)

    def fails() -> str:
        raise OSError

    interruption.keeps(fails)
    interruption.report(INT)
    assert capfd.readouterr().err.splitlines() == [
        "stopped (SIGTERM): 2 steps",
        "stopped (SIGINT): what was saved before is kept",
    ]


def test_a_closed_stream_drops_what_is_written_and_reports_it_once():
    reader, writer = os.pipe()
    os.close(reader)
    closed = []
    stream = interruption._Stream(writer, lambda: closed.append(True))
    assert [stream.write(b"one"), stream.write(b"two")] == [3, 3]
    assert closed == [True]
    os.close(writer)


def begun(program: str, *folders: Path) -> subprocess.Popen[bytes]:
    """Starts a Python program that can import from the folders; returns its process once it has printed `begun`."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [Path(__file__).parents[2], *folders]))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(process, b"begun")
    return process


SWALLOWS = """
import time
from block_recurrent.cli import interruption

def command():
    print("begun", flush=True)
    for _ in range(2):
        try:
            time.sleep(60)
        except BaseException:
            print("caught", flush=True)
    time.sleep(60)

interruption.run(command)
"""
DESTRUCTOR = """
import time
from block_recurrent.cli import interruption

class Slow:
    def __del__(self):
        print("begun", flush=True)
        time.sleep(60)

def command():
    Slow()
    time.sleep(60)

interruption.run(command)
"""

IMPORTS = """
import time
from block_recurrent.cli import interruption

def command():
    import slow_to_import
    time.sleep(60)

interruption.run(command)
"""
KEEPS = """
import time
from block_recurrent.cli import interruption

def command():
    print("begun", flush=True)
    try:
        time.sleep(60)
    except BaseException as error:
        kept = error
        time.sleep(60)

interruption.run(command)
"""


@pytest.mark.slow
def test_a_process_that_does_not_end_after_a_request_is_ended():
    process = begun(KEEPS)
    process.send_signal(TERM)
    assert ended(process, 143) == "stopped (SIGTERM): nothing was written"


@pytest.mark.parametrize("program", [SWALLOWS, DESTRUCTOR], ids=["library", "destructor"])
def test_a_request_that_does_not_arrive_is_raised_again(program):
    process = begun(program)
    asked = time.monotonic()
    process.send_signal(TERM)
    assert ended(process, 143) == "stopped (SIGTERM): nothing was written"
    assert time.monotonic() - asked < interruption._GRACE_SECONDS


def test_a_request_during_an_import_waits_for_its_end(tmp_path):
    (tmp_path / "slow_to_import.py").write_text(
        """
import time
print("begun", flush=True)
for _ in range(10):
    time.sleep(0.1)
print("imported", flush=True)
"""
    )
    process = begun(IMPORTS, tmp_path)
    process.send_signal(TERM)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert (output, error) == (b"imported\n", b"stopped (SIGTERM): nothing was written\n")


def test_a_request_waits_for_an_event_loop(tmp_path):
    """Raised in a callback of the loop, the exception would be logged."""
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, os, signal, time\n"
        "from block_recurrent.cli import interruption\n"
        "async def read():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    await asyncio.sleep(0.5)\n"
        "    print('read')\n"
        "def command():\n"
        "    asyncio.run(read())\n"
        "    time.sleep(60)\n"
        "interruption.run(command)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert process.stdout == "read\n"
    assert (process.stderr, process.returncode) == ("stopped (SIGTERM): nothing was written\n", 128 + signal.SIGTERM)

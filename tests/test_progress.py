"""Progress where there is no terminal: lines instead of a bar."""

import io

import pytest
from rich.console import Console

from block_recurrent.progress import Progress, Stages
from tests.support.clock import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def output():
    return io.StringIO()


@pytest.fixture
def console(output):
    return Console(file=output, width=30)  # lines are not wrapped


def test_a_line_every_fifteen_seconds_with_the_time_left(clock, console, output):
    with Progress("train", 1000, console=console, clock=clock) as progress:
        for done in range(1, 41):
            clock.seconds += 1
            progress.update(done * 10, f"{done} facts")
    assert output.getvalue().splitlines() == [
        "train 150/1,000  1:25 left  15 facts",
        "train 300/1,000  1:10 left  30 facts",
    ]


def test_work_done_before_does_not_count_into_the_time_left(clock, console, output):
    with Progress("train", 1000, done=900, console=console, clock=clock) as progress:
        clock.seconds += 15
        progress.update(900)
        clock.seconds += 15
        progress.update(920)
        clock.seconds += 15
        progress.update(960)
    assert output.getvalue().splitlines() == ["train 900/1,000", "train 920/1,000", "train 960/1,000  0:15 left"]


def test_compilation_before_the_first_unit_does_not_count_into_the_time_left(clock, console, output):
    with Progress("train", 100, console=console, clock=clock) as progress:
        clock.seconds += 600  # compiles
        for done in range(1, 17):
            progress.update(done)
            clock.seconds += 1
    assert output.getvalue().splitlines() == ["train 1/100", "train 16/100  1:24 left"]


def test_hours_are_shown_and_the_total_may_change(clock, console, output):
    with Progress("read", 10, console=console, clock=clock) as progress:
        clock.seconds += 60
        progress(1, 122)
        clock.seconds += 60
        progress(2, 122)
    assert output.getvalue() == "read 1/122\nread 2/122  2:00:00 left\n"


def test_each_stage_has_its_own_time(clock, console, output):
    with Stages("evaluate", console, clock) as stages:
        stages("scores", 0, 10)
        clock.seconds += 2
        stages("scores", 1, 10)
        clock.seconds += 16
        stages("scores", 5, 10)
        stages("scores", 10, 10)
        stages("states", 40, 100)  # continues earlier work
        clock.seconds += 2
        stages("states", 50, 100)
        clock.seconds += 20
        stages("states", 60, 100)
    assert output.getvalue().splitlines() == [
        "evaluate: scores 5/10  0:20 left",
        "evaluate: states 60/100  1:20 left",
    ]

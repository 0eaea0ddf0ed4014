import queue

import pytest

from block_recurrent.training.watchdog import Watchdog
from tests.support.clock import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def messages():
    return []


@pytest.fixture
def watchdog(clock, messages):
    """A watchdog, without its thread, that has seen eight steps of one second and watches step 8."""
    watchdog = Watchdog(messages.append, clock=clock)
    for step in range(9):
        watchdog.beat(step)
        clock.seconds += 1
    watchdog.beat(8)
    return watchdog


def test_a_long_step_is_reported_once(watchdog, clock, messages):
    clock.seconds += 19
    watchdog.check()
    assert messages == []
    clock.seconds += 2
    watchdog.check()
    watchdog.check()
    assert len(messages) == 1
    assert messages[0].startswith("step 8 has been running for 21 s, 21 times the usual 1.00 s")
    watchdog.beat(9)
    clock.seconds += 30
    watchdog.check()
    assert len(messages) == 2


def test_nothing_is_reported_while_it_rests_or_before_the_next_step(watchdog, clock, messages):
    with watchdog.resting():
        clock.seconds += 500
        watchdog.check()
    clock.seconds += 500
    watchdog.check()
    assert messages == []


def test_the_first_steps_and_short_waits_are_never_reported(clock, messages):
    watchdog = Watchdog(messages.append, clock=clock)
    for step in range(5):
        watchdog.beat(step)
        clock.seconds += 0.01
    clock.seconds += 1000
    watchdog.check()  # four durations are too few
    assert messages == []
    watchdog = Watchdog(messages.append, least_seconds=60, clock=clock)
    for step in range(9):
        watchdog.beat(step)
        clock.seconds += 0.01
    clock.seconds += 59
    watchdog.check()
    assert messages == []


def test_its_thread_checks_by_itself_and_ends():
    messages, clock = queue.Queue(), Clock()
    with Watchdog(messages.put, least_seconds=0.01, clock=clock) as watchdog:
        for step in range(9):
            watchdog.beat(step)
            clock.seconds += 1
        watchdog.beat(8)
        clock.seconds += 100
        assert messages.get(timeout=60).startswith("step 8")
    assert not watchdog._thread.is_alive()

import os
import signal

import pytest

from block_recurrent.parallel.preemption import Preemption

SIGNALS = [signal.SIGTERM, signal.SIGINT]


class ReceivedError(Exception):
    """Raised by the handler that was installed before."""


@pytest.fixture(autouse=True)
def handlers():
    """Handlers of the process before a `Preemption`; pytest's own are restored after the test."""

    def handle(number, frame):
        raise ReceivedError(number)

    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    yield dict.fromkeys(SIGNALS, handle)
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_a_request_to_stop(number):
    with Preemption() as preemption:
        assert not preemption.requested()
        os.kill(os.getpid(), number)
        assert preemption.requested()
        assert preemption.requested()  # until the end


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_reaches_the_previous_handler(number):
    with Preemption() as preemption:
        os.kill(os.getpid(), number)
        with pytest.raises(ReceivedError):
            os.kill(os.getpid(), number)
        assert preemption.requested()


def test_each_kind_of_signal_counts_for_itself():
    with Preemption():
        for number in SIGNALS:
            os.kill(os.getpid(), number)  # neither reaches the previous handler


@pytest.mark.parametrize("number", [None, *SIGNALS])
def test_previous_handlers_are_restored(handlers, number):
    with Preemption():
        assert all(signal.getsignal(each) != handlers[each] for each in SIGNALS)
        if number is not None:
            os.kill(os.getpid(), number)
    assert {each: signal.getsignal(each) for each in SIGNALS} == handlers

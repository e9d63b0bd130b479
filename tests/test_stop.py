"""Signals that ask a run to stop: at once, after the step at hand, or not at all."""

import os
import signal

import pytest

from fisherexp.stop import SIGNALS, Stopped, finishing_the_step, is_asked, stoppable


def ask(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_stops_at_once_outside_of_a_loop(number):
    with pytest.raises(Stopped), stoppable():
        ask(number)
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_loop_ends_its_step_first():
    steps = []

    def loop() -> None:
        for step in range(5):
            if step == 2:
                ask()
            steps.append(step)
            if is_asked():
                break

    with pytest.raises(Stopped), stoppable(), finishing_the_step():
        loop()
    assert steps == [0, 1, 2]


def test_an_earlier_request_does_not_stop_the_next_run():
    with pytest.raises(Stopped), stoppable():
        ask()
    with stoppable():
        assert not is_asked()


def test_what_breaks_because_another_rank_stopped_is_no_failure():
    def broken_step() -> None:
        ask()
        raise RuntimeError("connection closed by peer")

    with pytest.raises(Stopped), stoppable(), finishing_the_step():
        broken_step()
    with pytest.raises(RuntimeError), stoppable():
        raise RuntimeError("of its own")


def test_a_handler_of_somebody_else_stays():
    seen = []
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        with stoppable():
            ask(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert seen == [signal.SIGUSR1]

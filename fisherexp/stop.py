"""Graceful shutdown: SIGTERM and SIGUSR1 ask a run to keep its state and stop; launched again it goes on from there.

SLURM sends them before it takes the machine away. Within a training loop the run stops after the step at hand, with
its state saved (`Resumable` asks `is_asked`); anywhere else at once, since there is nothing to save.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(BaseException):
    """The run was asked to stop. No Exception: nobody should mistake it for a failure of theirs."""


class Pruned(Exception):
    """A search gave this run up; the message says on what grounds."""


_asked: signal.Signals | None = None
_loops = 0  # training loops around the present moment: they save before they stop


def is_asked() -> bool:
    """Has this process been asked to stop?"""
    return _asked is not None


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, the signals that nobody else has taken raise Stopped, at once or at the end of a step."""
    global _asked
    _asked = None
    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _ask)
    try:
        yield
    except Exception:
        if is_asked():  # another rank stopped a moment earlier, and what we shared with it broke
            raise Stopped from None
        raise
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def finishing_the_step() -> Iterator[None]:
    """Within, Stopped is not raised: the loop inside asks `is_asked` after each step. It is at the end."""
    global _loops
    _loops += 1
    try:
        yield
    finally:
        _loops -= 1
    if is_asked() and not _loops:
        raise Stopped


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, Lightning's exit(1) in answer to Ctrl-C is the interruption of a run that can go on later."""
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None


def take_signals_back() -> None:
    """Undo that Lightning, when its loop began, put a handler of its own in front of ours."""
    for number in SIGNALS:
        if _is_ours(signal.getsignal(number)):
            signal.signal(number, _ask)


def _is_ours(handler) -> bool:
    return handler is _ask or _ask in getattr(handler, "signal_handlers", ())


def _ask(number: int, frame) -> None:
    global _asked
    _asked = signal.Signals(number)
    if not _loops:
        raise Stopped

"""How far a loop is: a moving bar on a terminal and in a notebook, now and then a line elsewhere."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from fisherexp.callbacks.bars import NotebookBar, TerminalBar, in_notebook, speed
from fisherexp.files import write_json

REFRESH_SECONDS = 0.2
LINE_SECONDS = 60.0  # a log hears of a long phase this often
TELL_SECONDS = 5.0


class Meter:
    """Of the phase called `name`.

    how: 'bar' draws one; 'lines' prints a line at the end and, of a long phase, every LINE_SECONDS; 'auto' is a bar
    where somebody can see it. short: a phase of less than so many seconds gets no line. file: where to tell the same
    to other processes, every few seconds.
    """

    def __init__(
        self,
        name: str,
        how: Literal["auto", "bar", "lines", "off"] = "auto",
        short: float = 0.0,
        file: Path | None = None,
    ) -> None:
        self.name, self.short, self.file = name, short, file
        self.how = how if how != "auto" else ("bar" if in_notebook() or sys.stderr.isatty() else "lines")
        self.done = 0
        self._bar: TerminalBar | NotebookBar | None = None
        self._begun = self._shown = self._told = 0.0
        self._first, self._steps = 0, None
        self._words: Callable[[], str] = str

    def begin(self, steps: int | None, done: int = 0) -> None:
        """steps: of the whole phase, None where nobody knows; done: before it went on."""
        self._begun = self._shown = time.monotonic()
        self._first, self.done, self._steps, self._words = done, done, steps, str
        if self.how == "bar":
            self._bar = (NotebookBar if in_notebook() else TerminalBar)(self.name, steps, done)

    def advance(self, done: int, words: Callable[[], str] = str) -> None:
        """So many steps are done. words: what there is to say of the last one, asked for only when it is shown."""
        self.done, self._words, now = done, words, time.monotonic()
        if self.file is not None and now - self._told > TELL_SECONDS:
            self._told = now
            write_json(self.file, {"phase": self.name, "step": done, "steps": self._steps})
        if self._bar is not None and now - self._shown > REFRESH_SECONDS:
            self._shown = now
            self._bar.show(done, words())
        elif self.how == "lines" and now - self._shown > LINE_SECONDS:
            self._shown = now
            rate = (done - self._first) / (now - self._begun)
            left = "" if self._steps is None else f", {(self._steps - done) / rate:.0f} s left"
            of = "" if self._steps is None else f" of {self._steps}"
            said = f", {text}" if (text := words()) else ""
            print(
                f"{self.name:<28} {done}{of}, {speed(done - self._first, now - self._begun)}{left}{said}",
                file=sys.stderr,
            )

    def finish(self) -> None:
        """The phase is over."""
        seconds = time.monotonic() - self._begun
        if self._bar is not None:
            self._bar.show(self.done if self._steps is None else self._steps, self._words())
            self.stop()
        elif self.how == "lines" and seconds >= self.short:
            print(f"{self.name:<28} {seconds:8.1f} s", file=sys.stderr)

    def stop(self) -> None:
        """Leave the terminal as it is, at any moment."""
        self._words = str  # it may hold on to a batch's outputs
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

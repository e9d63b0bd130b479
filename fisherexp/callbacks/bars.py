"""Moving bars: one for a terminal, one for a notebook. Each draws itself when it is made."""

import sys
import time
from html import escape

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text


def in_notebook() -> bool:
    """Is this process the kernel of a notebook? Asks nothing to be imported that is not there already."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and getattr(shell, "kernel", None) is not None


WIDEST = 100  # columns of a terminal that a bar fills at most


def speed(steps: int, seconds: float) -> str:
    """`43.0 steps/s`, `4,370 steps/s`; nothing before any time has passed."""
    if seconds <= 0:
        return ""
    rate = steps / seconds
    return f"{rate:#.3g} steps/s" if rate < 100 else f"{rate:,.0f} steps/s"


class TerminalBar:
    """One line of the terminal (standard error). steps: of the whole phase, None where nobody knows; done: before it
    went on.

    Only the name and the bar itself give way where the terminal is narrow: figures stay whole.
    """

    def __init__(self, name: str, steps: int | None, done: int) -> None:
        console = Console(stderr=True)
        console.width = min(console.width, WIDEST)
        columns = (
            Name(table_column=Column(ratio=2)),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            Words(table_column=Column(no_wrap=True)),
            Rate(table_column=Column(no_wrap=True)),
            TimeElapsedColumn() if steps is None else TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        )
        self.progress = Progress(*columns, console=console, auto_refresh=False, transient=False, expand=True)
        self.progress.start()
        self.task = self.progress.add_task(name, total=steps, completed=done, first=done, words="")

    def show(self, done: int, words: str = "") -> None:
        """Draw it with so many steps done, and `words` on the last one."""
        self.progress.update(self.task, completed=done, words=words)
        self.progress.refresh()

    def stop(self) -> None:
        """Leave the terminal as it is."""
        self.progress.stop()


class NotebookBar:
    """One element of the cell's output, replaced in place: no widgets, no further lines, and a saved notebook keeps its
    last state."""

    def __init__(self, name: str, steps: int | None, done: int) -> None:
        from IPython.display import HTML, display

        self.name, self.steps, self.first, self.begun = name, steps, done, time.monotonic()
        self.html = HTML
        self.handle = display(HTML(self._drawn(done, "")), display_id=True)

    def show(self, done: int, words: str = "") -> None:
        """Draw it with so many steps done, and `words` on the last one."""
        self.handle.update(self.html(self._drawn(done, words)))

    def stop(self) -> None:
        """It stays as it is."""

    def _drawn(self, done: int, said: str) -> str:
        seconds = time.monotonic() - self.begun
        of = "" if self.steps is None else f" of {self.steps}"
        rate = f", {speed(done - self.first, seconds)}" if seconds and done > self.first else ""
        share = "" if self.steps is None else f' value="{done}" max="{self.steps}"'
        words = f"{done}{of}{rate}, {seconds:.1f} s{said and ', '}{escape(said)}"
        return (
            '<div style="white-space: nowrap; overflow: hidden; text-overflow: ellipsis">'
            f"<progress{share}></progress> {escape(self.name)}: {words}</div>"
        )


class Name(ProgressColumn):
    """The phase, cut short where there is no room for it."""

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class Words(ProgressColumn):
    """What there is to say of the last step: epoch and loss, or a solver's figures."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["words"], style="cyan")


class Rate(ProgressColumn):
    """Steps per second since the phase began, or went on: with step `first`."""

    def render(self, task: Task) -> Text:
        return Text(speed(task.completed - task.fields["first"], task.finished_time or task.elapsed or 0.0))

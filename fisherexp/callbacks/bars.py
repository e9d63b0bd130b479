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
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


def in_notebook() -> bool:
    """Is this process the kernel of a notebook? Asks nothing to be imported that is not there already."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and getattr(shell, "kernel", None) is not None


class TerminalBar:
    """One line of the terminal (standard error). steps: of the whole phase, None where nobody knows; done: before it
    went on."""

    def __init__(self, name: str, steps: int | None, done: int) -> None:
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=False)
        self.progress.start()
        self.task = self.progress.add_task(name, total=steps, completed=done, first=done)

    def show(self, done: int) -> None:
        """Draw it with so many steps done."""
        self.progress.update(self.task, completed=done)
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
        self.handle = display(HTML(self._drawn(done)), display_id=True)

    def show(self, done: int) -> None:
        """Draw it with so many steps done."""
        self.handle.update(self.html(self._drawn(done)))

    def stop(self) -> None:
        """It stays as it is."""

    def _drawn(self, done: int) -> str:
        seconds = time.monotonic() - self.begun
        of = "" if self.steps is None else f" of {self.steps}"
        rate = f", {(done - self.first) / seconds:.3g} steps/s" if seconds and done > self.first else ""
        share = "" if self.steps is None else f' value="{done}" max="{self.steps}"'
        words = f"{done}{of}{rate}, {seconds:.1f} s"
        return (
            '<div style="white-space: nowrap; overflow: hidden; text-overflow: ellipsis">'
            f"<progress{share}></progress> {escape(self.name)}: {words}</div>"
        )


class Rate(ProgressColumn):
    """Steps per second since the phase began, or went on: with step `first`."""

    def render(self, task: Task) -> Text:
        seconds = task.finished_time or task.elapsed
        return Text(f"{(task.completed - task.fields['first']) / seconds:.3g} steps/s" if seconds else "")

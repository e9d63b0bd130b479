"""The face for Python and notebooks: `fisherexp.run`, `records`, `load`, `table`, `plot`.

What each does is what the command line does; what each returns shows itself at a prompt and in a notebook. Errors are
exceptions with a line for each problem: ConfigError and RunFailed of a run, ValueError where finished runs lack what is
asked of them.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherexp.config.explain import UNCOMPOSABLE, composed, explain, unknown_choices
from fisherexp.config.problem import ConfigError, Problem
from fisherexp.reports.records import Damaged, choose, left_out, nothing_found, read_records
from fisherexp.runs.code import has_changed
from fisherexp.runs.ledger import Outcome
from fisherexp.runs.state import RunFolder, State
from fisherexp.single import RunFailed, run_one

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

    from fisherexp.reports.table import Grid

SWEEP = "one run at a time: loop over its values, or launch the sweep with python run.py -m"


class Record(dict):
    """A run's record (run.json) with its folder under 'folder' and whether its code has changed since
    under 'code_changed'; shows itself as the table of its stages and metrics."""

    def __repr__(self) -> str:
        return repr(self._grid())

    def _repr_html_(self) -> str:
        return self._grid()._repr_html_()

    def _grid(self) -> "Grid":
        from fisherexp.reports.stages import stages

        return stages(self)


def run(*overrides: str) -> Record:
    """One experiment: found where it was made before, else made now, as by `python run.py <overrides>`.

    overrides: as on the command line, "method=ssd", "seed=1". Raises ConfigError for a config that cannot be run,
    before anything is loaded, and RunFailed for a run that ended with an error or that another process works on.
    """
    lines = list(overrides)
    if problems := unknown_choices(lines) and explain(lines):
        raise ConfigError(problems)
    try:
        cfg = composed(lines)
    except UNCOMPOSABLE as error:
        swept = "multirun" in str(error)
        found = [] if swept else explain(lines)
        raise ConfigError(found or [Problem(" ".join(lines), SWEEP if swept else _one_line(error))]) from None
    try:
        entry = run_one(cfg, lines, sweep=True)
    except ConfigError as error:
        raise ConfigError(explain(lines) or error.problems) from None
    if entry.outcome is not Outcome.DONE:
        raise RunFailed(entry.remark)
    return _record(RunFolder(Path(entry.folder)))


def records(output_dir: str | Path = "outputs") -> "pd.DataFrame":
    """Every finished run below `output_dir`, trial runs included (column `trial`): a pandas frame with a line per run.

    Columns: identity, data, model, scenario, method, seed, trial, finished, code_changed, folder; then each option
    by its dotted key and each metric as '<stage>/<metric>'. Files that cannot be read are warned of and left out.
    """
    from fisherexp.reports.frame import frame

    found = read_records(_existing(output_dir))
    _warn(found.damaged)
    return frame(found.records)


def load(run: str | Path | Mapping[str, Any], output_dir: str | Path = "outputs") -> "nn.Module":
    """The network of a finished run with the weights it ended with, in eval mode, on the CPU.

    run: a record, a run's folder, or its hash (or the beginning of it) among the runs below `output_dir`. It takes
    inputs as the run's data come, and returns logits; the data set is read for its shape. Raises ValueError where there
    is no such run, none that is done, or one without a network of its own.
    """
    from fisherexp.runs.network import network_of

    return network_of(_folder_of(run, Path(output_dir)))


def table(
    *filters: str,
    output_dir: str | Path = "outputs",
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    over: Sequence[str] = (),
    metrics: Sequence[str] = (),
    references: bool = False,
    baseline: str | None = None,
    interval: bool = False,
    trials: bool = False,
) -> "Grid":
    """Mean ± standard deviation over seeds of the runs for which every filter ("method=ssd|scrub") holds: what
    `python -m fisherexp table` prints, with the same options. Raises ValueError where no run is left, and as `compare`.
    """
    from fisherexp.reports.comparison import compare
    from fisherexp.reports.table import formatted

    shown = _chosen(output_dir, filters, trials)
    compared = compare(shown, rows, columns, over, metrics, references, baseline)
    return formatted(compared, "interval" if interval else "deviation")


def plot(
    kind: str,
    *filters: str,
    output_dir: str | Path = "outputs",
    x: str | None = None,
    y: str | None = None,
    over: Sequence[str] = (),
    trials: bool = False,
) -> "Figure":
    """The matplotlib figure that `python -m fisherexp plot <kind>` writes. Raises ValueError for an unknown kind, where
    no run is left, and where the runs lack what the figure shows."""
    from fisherexp.reports.plots import Request, kind_named

    drawing = kind_named(kind)
    try:
        return drawing.draw(_chosen(output_dir, filters, trials), Request(x, y, tuple(over)))
    except Damaged as error:
        raise ValueError(str(error)) from None


def _chosen(output_dir: str | Path, filters: Sequence[str], trials: bool) -> list[dict[str, Any]]:
    found = choose(_existing(output_dir), filters, trials)
    _warn(found.damaged)
    hidden = f"{left_out(found.left_out)} (trials=True shows them)" if found.left_out else ""
    if not found.records:
        raise ValueError("; ".join(filter(None, [nothing_found(Path(output_dir), filters), hidden])))
    if hidden:
        warnings.warn(hidden, stacklevel=3)
    return found.records


def _existing(output_dir: str | Path) -> Path:
    if not Path(output_dir).is_dir():
        raise ValueError(f"there is no folder {output_dir} in {Path.cwd()}")
    return Path(output_dir)


def _warn(damaged: Mapping[Path, str]) -> None:
    for file, reason in damaged.items():
        warnings.warn(f"{file} cannot be read: {reason}", stacklevel=4)


def _folder_of(run: str | Path | Mapping[str, Any], output_dir: Path) -> RunFolder:
    place = run["folder"] if isinstance(run, Mapping) else run
    folder = RunFolder(Path(place))
    if folder.path.is_dir():
        if folder.state() is not State.DONE:
            raise ValueError(f"{folder.path} is no finished run: {folder.state()}")
        return folder
    found = [r for r in read_records(_existing(output_dir)).records if r["identity"].startswith(str(place))]
    if len(found) != 1:
        what = "no finished run" if not found else f"{len(found)} runs"
        raise ValueError(f"{what} in {output_dir} with a hash that begins with '{place}'")
    return RunFolder(Path(found[0]["folder"]))


def _record(folder: RunFolder) -> Record:
    record = folder.record()
    return Record(record | {"folder": str(folder.path), "code_changed": has_changed(record)})


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

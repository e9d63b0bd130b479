"""One run, however it was asked for: found or claimed, made, shown.

Nothing heavy is imported before it is certain that something has to be computed.
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from hydra.errors import InstantiationException
from omegaconf import DictConfig
from yaml import YAMLError

from fisherexp.config.machine import beyond
from fisherexp.config.problem import ConfigError
from fisherexp.config.validate import validate
from fisherexp.content import look_again
from fisherexp.ranks import is_follower
from fisherexp.runs.code import code_behind, has_changed
from fisherexp.runs.frozen import freeze, thaw
from fisherexp.runs.identity import run_folder, semantic
from fisherexp.runs.ledger import Entry, Outcome
from fisherexp.runs.state import Busy, RunFolder, State
from fisherexp.stop import Pruned, Stopped, stoppable
from fisherexp.sweeps.queue import requeue

FAILED, REFUSED, TRY_LATER, STOPPED = 1, 2, 75, 143


class RunFailed(Exception):
    """A run ended with an error that is kept in its folder; the message is one line."""


def run_one(cfg: DictConfig, overrides: list[str], sweep: bool = False) -> Entry:
    """Run a composed config unless it is done. Raises ConfigError before anything is loaded, RunFailed after."""
    look_again()
    problems = [*validate(cfg), *beyond(cfg)]
    if problems:
        raise ConfigError(problems)
    folder = RunFolder(run_folder(cfg))
    done = Entry(Outcome.DONE, str(folder.path))
    if is_follower():
        _follow(cfg, folder, overrides)
        return done
    if folder.is_settled(cfg.rerun):
        show(folder, sweep, found=True, loggers=cfg.logger)
        return done
    try:
        with folder.claimed():
            if folder.is_settled(cfg.rerun):  # somebody finished it while we waited
                show(folder, sweep, found=True, loggers=cfg.logger)
                return done
            _run(cfg, folder, overrides)
    except Pruned as grounds:
        folder.prune(str(grounds))
        print(f"pruned {folder.path}  {grounds}")
        return Entry(Outcome.PRUNED, str(folder.path), str(grounds))
    except Busy as busy:
        print(f"{busy}: skipped", file=sys.stderr)
        return Entry(Outcome.SKIPPED, str(folder.path), str(busy))
    except OSError as error:  # the folder itself cannot be written
        raise RunFailed(str(error)) from None
    show(folder, sweep, found=False)
    return done


def run_apart(cfg: DictConfig, overrides: list[str]) -> Entry:
    """Run a composed config of a sweep in a process of its own, from its frozen config.

    With several devices Lightning starts the command line once more for each: that must not be the sweep's.
    """
    problems = [*validate(cfg), *beyond(cfg)]
    if problems:
        raise ConfigError(problems)
    folder = RunFolder(run_folder(cfg))
    if folder.is_settled(cfg.rerun):
        show(folder, sweep=True, found=True, loggers=cfg.logger)
        return Entry(Outcome.DONE, str(folder.path))
    freeze(cfg, overrides)
    status = subprocess.run([sys.executable, "-m", "fisherexp", "job", str(folder.path)], check=False).returncode
    if folder.state() is State.PRUNED:
        return Entry(Outcome.PRUNED, str(folder.path), folder.pruned_file.read_text(encoding="utf-8").strip())
    if status == TRY_LATER:
        return Entry(Outcome.SKIPPED, str(folder.path), "another process is working on it")
    if status:
        remark = folder.error() or f"its process ended with status {status}"
        return Entry(Outcome.FAILED, str(folder.path), f"{remark}  (traceback: {folder.error_file})")
    return Entry(Outcome.DONE, str(folder.path))


def needs_processes(cfg: DictConfig) -> bool:
    several = cfg.trainer.devices != 1 or cfg.trainer.num_nodes != 1
    return several and int(os.environ.get("SLURM_NTASKS", "1")) == 1  # srun has started them


def _follow(cfg: DictConfig, folder: RunFolder, overrides: list[str]) -> None:
    """As another rank than the first: compute along with it, and leave claims, records and words to it."""
    from fisherexp.experiment import run_experiment

    if not folder.is_settled(cfg.rerun):
        with stoppable():
            run_experiment(cfg, folder.path, overrides)


def _run(cfg: DictConfig, folder: RunFolder, overrides: list[str]) -> None:
    if (reason := folder.unusable()) and cfg.rerun is not True:
        print(f"{folder.record_file} cannot be read: {reason}: the run is made again", file=sys.stderr)
    folder.forget()
    freeze(cfg, overrides)
    try:
        code_behind(semantic(cfg))  # before it is imported: what is edited from now on has no part in the run
        with stoppable():
            from fisherexp.experiment import run_experiment
            from fisherexp.files import write_json

            record = run_experiment(cfg, folder.path, overrides)
            write_json(folder.record_file, record)
    except Pruned:
        raise
    except Exception as failure:
        error = cause(failure)
        message = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        try:
            folder.fail(traceback.format_exc())
        except OSError as unwritten:  # a full disk, as a rule the error itself
            traceback.print_exc()
            raise RunFailed(f"{message}  (the traceback above could not be kept: {unwritten})") from None
        raise RunFailed(f"{message}  (traceback: {folder.error_file})") from None


def cause(error: BaseException) -> BaseException:
    """What went wrong where Hydra was to make something of a config: it says only where."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def job(folder: Path) -> int:
    """Run what is frozen in a run's folder, in this process; returns the exit status as `main` does, or 75 (try
    later) where another process is working on it."""
    try:
        cfg, overrides = thaw(folder)
    except (OSError, ValueError, YAMLError) as error:
        print(f"{folder} holds no frozen run: {' '.join(str(error).split())}", file=sys.stderr)
        return REFUSED
    try:
        entry = run_one(cfg, overrides, sweep=True)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return REFUSED
    except RunFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        if cfg.on_error == "stop" and "SLURM_ARRAY_JOB_ID" in os.environ:
            subprocess.run(["scancel", "--state=PENDING", os.environ["SLURM_ARRAY_JOB_ID"]], check=False)
        return FAILED
    except Stopped:
        return stopped()
    return TRY_LATER if entry.outcome is Outcome.SKIPPED else 0


def stopped() -> int:
    """After Stopped: back into the queue under SLURM; returns the exit status."""
    if not is_follower():
        requeue()
    return STOPPED


def show(folder: RunFolder, sweep: bool, found: bool, loggers: Iterable[str] = ()) -> None:
    """Show a run that is done, as a table or, of a sweep, in a line. loggers: those asked for now."""
    from fisherexp.reports.summary import print_line, print_summary

    record = folder.record()
    changed = found and has_changed(record)
    (print_line if sweep else print_summary)(record, folder.path, found, changed)
    if found and (untold := [name for name in loggers if name not in record["config"].get("logger", {})]):
        print(f"nothing is told to {', '.join(untold)}: the run was found, not made (rerun=true makes it again)")
    sys.stdout.flush()

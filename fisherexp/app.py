"""`python run.py` and `fisherexp run`: composes, checks, finds what is done, runs what is not.

Nothing heavy is imported before it is certain that something has to be computed.
"""

import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fisherexp.config.explain import CONFIG_NAME, composed, explain, unknown_choices, within_sweeps
from fisherexp.config.locations import conf_dir, groups, options, search_path
from fisherexp.config.validate import ConfigError, validate
from fisherexp.ranks import is_follower
from fisherexp.runs.frozen import freeze, thaw
from fisherexp.runs.identity import run_folder
from fisherexp.runs.ledger import Entry, Ledger, Outcome
from fisherexp.runs.state import Busy, RunFolder, State
from fisherexp.stop import Stopped, stoppable
from fisherexp.sweeps.queue import requeue

BAD_CONFIG, FAILED, TRY_LATER, INTERRUPTED, STOPPED = 2, 1, 75, 130, 143
USAGE = """\
python run.py method=… data=… model=…     one run; the result is kept and found again
python run.py -m method=a,b seed=0,1,2    a sweep; launch it again and only what is missing runs
python run.py --cfg job                   the composed config; --hydra-help for Hydra's own flags
python -m fisherexp list                  what there is to choose from, with papers
"""


class RunFailed(Exception):
    """A run ended with an error that is kept in its folder; the message is one line."""


# Of a single run: Hydra would print a line of its own before it let an exception through.
_unraised: list[Exception] = []


class SweepLedger(Callback):
    """Opens the sweep's ledger before any run of it begins (conf/run.yaml names this class to Hydra)."""

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        Ledger(Path(config.hydra.sweep.dir) / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.jsonl").open()


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit status (0 done, 1 a run failed, 2 a bad config,
    130 interrupted, 143 stopped by a signal)."""
    if arguments is not None:
        sys.argv = [sys.argv[0], *arguments]
    command = get_args_parser().parse_args(sys.argv[1:])
    overrides = command.overrides
    if command.help:
        return _help(overrides)
    # A sweep is checked before its first run; a single run checks itself, once it is composed.
    problems = explain(overrides) if command.multirun or unknown_choices(overrides) else []
    if problems:
        return _refuse(problems)
    if command.multirun:
        sys.argv = [within_sweeps(argument, overrides) for argument in sys.argv]
    # Hydra would print a stack trace and exit; it re-raises when asked for the full error, and we print one line.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    status = _outcome(overrides)
    ledger = Ledger.of_sweep() if command.multirun else None
    return max(status, _sum_up(ledger.close())) if ledger else status


def _outcome(overrides: list[str]) -> int:
    """Let Hydra run it. What single runs of a sweep came to is in the ledger and no part of this status."""
    try:
        hydra.main(config_path=str(conf_dir()), config_name=CONFIG_NAME, version_base="1.3")(task)()
        if _unraised:
            raise _unraised.pop()
    except RunFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        return FAILED
    except ConfigError as error:
        return _refuse(explain(overrides) or error.problems)
    except (HydraException, OmegaConfBaseException) as error:
        return _refuse(explain(overrides) or [" ".join(str(error).split())])
    except OSError as error:  # of the sweep's own files, a full disk say; a run's end in RunFailed
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; launch the same line again to go on", file=sys.stderr)
        return INTERRUPTED
    except Stopped:
        return _stop()
    return 0


def job(folder: Path) -> int:
    """Run what is frozen in a run's folder, in this process; returns the exit status as `main` does, or 75 (try
    later) where another process is working on it."""
    cfg, overrides = thaw(folder)
    try:
        entry = run_one(cfg, overrides, sweep=True)
    except ConfigError as error:
        return _refuse(error.problems)
    except RunFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        if cfg.on_error == "stop" and "SLURM_ARRAY_JOB_ID" in os.environ:
            subprocess.run(["scancel", "--state=PENDING", os.environ["SLURM_ARRAY_JOB_ID"]], check=False)
        return FAILED
    except Stopped:
        return _stop()
    return TRY_LATER if entry.outcome is Outcome.SKIPPED else 0


def task(cfg: DictConfig) -> str | None:
    """One run, in the process Hydra chose for it; returns its folder if it is done now.

    What else became of it, a run of a sweep tells the sweep's ledger, and a single run leaves to `main`.
    """
    overrides = [str(o) for o in HydraConfig.get().overrides.task]
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        try:
            return run_one(cfg, overrides).folder
        except (ConfigError, RunFailed) as error:
            _unraised.append(error)
            return None
    ledger = Ledger.of_sweep()
    if cfg.on_error == "stop" and ledger.has_failures():
        ledger.add(Outcome.SKIPPED, run_folder(cfg), "not started: an earlier run failed (on_error=stop)")
        return None
    try:
        entry = run_apart(cfg, overrides) if _needs_processes(cfg) else run_one(cfg, overrides, sweep=True)
    except ConfigError as error:
        print(error, file=sys.stderr)
        entry = Entry(Outcome.REFUSED, "", str(error))
    except RunFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        entry = Entry(Outcome.FAILED, str(run_folder(cfg)), str(error))
    if not is_follower():
        ledger.add(entry.outcome, entry.folder, entry.remark)
    return entry.folder if entry.outcome is Outcome.DONE else None


def run_one(cfg: DictConfig, overrides: list[str], sweep: bool = False) -> Entry:
    """Run a composed config unless it is done. Raises ConfigError before anything is loaded, RunFailed after."""
    problems = validate(cfg)
    if problems:
        raise ConfigError(problems)
    folder = RunFolder(run_folder(cfg))
    done = Entry(Outcome.DONE, str(folder.path))
    if is_follower():
        _follow(cfg, folder, overrides)
        return done
    if folder.state() is State.DONE and not cfg.rerun:
        _show(folder, sweep, found=True)
        return done
    try:
        with folder.claimed():
            if folder.state() is State.DONE and not cfg.rerun:  # somebody finished it while we waited
                _show(folder, sweep, found=True)
                return done
            _run(cfg, folder, overrides)
    except Busy as busy:
        print(f"{busy}: skipped", file=sys.stderr)
        return Entry(Outcome.SKIPPED, str(folder.path), str(busy))
    except OSError as error:  # the folder itself cannot be written
        raise RunFailed(str(error)) from None
    _show(folder, sweep, found=False)
    return done


def run_apart(cfg: DictConfig, overrides: list[str]) -> Entry:
    """Run a composed config of a sweep in a process of its own, from its frozen config.

    With several devices Lightning starts the command line once more for each: that must not be the sweep's.
    """
    problems = validate(cfg)
    if problems:
        raise ConfigError(problems)
    folder = RunFolder(run_folder(cfg))
    if folder.state() is State.DONE and not cfg.rerun:
        _show(folder, sweep=True, found=True)
        return Entry(Outcome.DONE, str(folder.path))
    freeze(cfg, overrides)
    status = subprocess.run([sys.executable, "-m", "fisherexp", "job", str(folder.path)], check=False).returncode
    if status == TRY_LATER:
        return Entry(Outcome.SKIPPED, str(folder.path), "another process is working on it")
    if status:
        remark = folder.error() or f"its process ended with status {status}"
        return Entry(Outcome.FAILED, str(folder.path), f"{remark}  (traceback: {folder.error_file})")
    return Entry(Outcome.DONE, str(folder.path))


def _needs_processes(cfg: DictConfig) -> bool:
    several = cfg.trainer.devices != 1 or cfg.trainer.num_nodes != 1
    return several and int(os.environ.get("SLURM_NTASKS", "1")) == 1  # srun has started them


def _follow(cfg: DictConfig, folder: RunFolder, overrides: list[str]) -> None:
    """As another rank than the first: compute along with it, and leave claims, records and words to it."""
    from fisherexp.experiment import run_experiment

    if folder.state() is not State.DONE or cfg.rerun:
        with stoppable():
            run_experiment(cfg, folder.path, overrides)


def _run(cfg: DictConfig, folder: RunFolder, overrides: list[str]) -> None:
    folder.forget()
    freeze(cfg, overrides)
    try:
        with stoppable():
            from fisherexp.experiment import run_experiment
            from fisherexp.files import write_json

            record = run_experiment(cfg, folder.path, overrides)
            write_json(folder.record_file, record)
    except Exception as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        try:
            folder.fail(traceback.format_exc())
        except OSError as unwritten:  # a full disk, as a rule the error itself
            traceback.print_exc()
            raise RunFailed(f"{message}  (the traceback above could not be kept: {unwritten})") from None
        raise RunFailed(f"{message}  (traceback: {folder.error_file})") from None


def _stop() -> int:
    if not is_follower():
        requeue()
    return STOPPED


def _sum_up(entries: list[Entry]) -> int:
    """Print the table of a sweep and what did not come to a result; returns the exit status."""
    done = [RunFolder(Path(entry.folder)) for entry in entries if entry.outcome is Outcome.DONE]
    if len(done) > 1:
        from fisherexp.reports.table import grid, print_table

        print_table(grid([folder.record() for folder in done]))
    lacking = [entry for entry in entries if entry.outcome is not Outcome.DONE]
    if lacking:
        print(file=sys.stderr)
    for entry in lacking:
        print(f"{entry.outcome:<8} {entry.folder}  {entry.remark}", file=sys.stderr)
    kinds = {kind: sum(entry.outcome is kind for entry in entries) for kind in Outcome}
    if lacking:
        print(", ".join(f"{count} {kind}" for kind, count in kinds.items() if count), file=sys.stderr)
    if kinds[Outcome.FAILED] or (kinds[Outcome.REFUSED] and kinds[Outcome.REFUSED] < len(entries)):
        return FAILED
    return BAD_CONFIG if kinds[Outcome.REFUSED] else 0


def _show(folder: RunFolder, sweep: bool, found: bool) -> None:
    from fisherexp.reports.summary import print_line, print_summary

    record = folder.record()
    if sweep:
        print_line(record, folder.path, found)
    else:
        print_summary(record, folder.path, found)
    sys.stdout.flush()


def _help(overrides: list[str]) -> int:
    # Hydra's own help composes every option of every group; that takes seconds.
    directories = search_path()
    print(USAGE)
    for group in sorted(groups(directories)):
        print(f"{group}: {', '.join(options(group, directories))}")
    print("\nOptions and their defaults (change one with option=value):\n")
    print(OmegaConf.to_yaml(composed(overrides)))
    return 0


def _refuse(problems: list) -> int:
    for problem in problems:
        print(problem, file=sys.stderr)
    return BAD_CONFIG

"""`python run.py` and `fisherexp run`: composes, checks, finds what is done, runs what is not.

Nothing heavy is imported before it is certain that something has to be computed.
"""

import os
import sys
import time
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fisherexp.catalogue import by_wing
from fisherexp.config.explain import (
    CONFIG_NAME,
    UNCOMPOSABLE,
    composed,
    explain,
    is_experiments_sweep,
    several_values,
    unknown_choices,
    within_sweeps,
)
from fisherexp.config.locations import allow_namespaces, conf_dir, groups, options, search_path, searched
from fisherexp.config.problem import ConfigError, Problem
from fisherexp.config.shorthand import natives
from fisherexp.ranks import is_follower
from fisherexp.runs.code import has_changed
from fisherexp.runs.identity import run_folder
from fisherexp.runs.ledger import VARIABLE, Entry, Ledger, Outcome
from fisherexp.runs.state import RunFolder
from fisherexp.single import FAILED, REFUSED, RunFailed, needs_processes, run_apart, run_one, show, stopped
from fisherexp.stop import Stopped

INTERRUPTED = 130
USAGE = """\
python run.py method=… data=… model=…     one run; the result is kept and found again
python run.py -m method=a,b seed=0,1,2    a sweep; launch it again and only what is missing runs
python run.py --cfg job                   the composed config; --hydra-help for Hydra's own flags
python -m fisherexp list                  the line that runs each method, and all other choices, with papers
"""


# Of a single run: Hydra would print a line of its own before it let an exception through.
_unraised: list[Exception] = []


class SweepLedger(Callback):
    """Opens the sweep's ledger before any run of it begins (conf/run.yaml names this class to Hydra)."""

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        Ledger(Path(config.hydra.sweep.dir) / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.jsonl").open()


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit status (0 done, 1 a run failed, 2 a bad config,
    130 interrupted, 143 stopped by a signal)."""
    try:
        return _main(arguments)
    except BrokenPipeError:  # of `… | head`: nobody reads on, and Python's own last flush would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _main(arguments: list[str] | None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    # Flags first: between overrides, argparse would take those behind a flag for unknown arguments.
    sys.argv = [sys.argv[0], *sorted(natives(arguments), key=lambda argument: argument not in ("-m", "--multirun"))]
    parser = get_args_parser()
    parser.usage = "python run.py option=value …  (--help, --hydra-help)"
    command = parser.parse_args(sys.argv[1:])
    overrides = command.overrides
    unknown = unknown_choices(overrides)
    several = [] if command.multirun or command.cfg or unknown else several_values(overrides)
    if several and is_experiments_sweep(overrides):
        command.multirun = True
        sys.argv.insert(1, "--multirun")
    elif several:
        line = " ".join(several)
        return _refuse([Problem(line, "several values make a sweep", f"-m {line}")])
    # A sweep is checked before its first run; a single run checks itself, once it is composed.
    problems = explain(overrides) if command.multirun or unknown else []
    if command.multirun and command.cfg:
        problems += [Problem("--cfg", "shows the config of one run, not of a sweep", f"--cfg {command.cfg} without -m")]
    if problems:
        return _refuse(problems)
    if command.help:
        return _help(overrides)
    if command.multirun:
        sys.argv = [within_sweeps(argument, overrides) for argument in sys.argv]
    allow_namespaces(overrides)
    # Hydra would print a stack trace and exit; it re-raises when asked for the full error, and we print one line.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ.pop(VARIABLE, None)
    status = _outcome(overrides)
    ledger = Ledger.of_sweep()  # of an experiment's file that is a sweep, too
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
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        return _refuse(explain(overrides) or [" ".join(str(error).split())])
    except UNCOMPOSABLE:
        if problems := explain(overrides):
            return _refuse(problems)
        raise
    except OSError as error:  # of the sweep's own files, a full disk say; a run's end in RunFailed
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; launch the same line again to go on", file=sys.stderr)
        return INTERRUPTED
    except Stopped:
        return stopped()
    return 0


def task(cfg: DictConfig) -> str | None:
    """One run, in the process Hydra chose for it; returns its folder if it is done now.

    What else became of it, a run of a sweep tells the sweep's ledger, and a single run leaves to `main`.
    """
    hydra_config = HydraConfig.get()
    overrides = [*searched(hydra_config.runtime.config_sources), *map(str, hydra_config.overrides.task)]
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
        entry = run_apart(cfg, overrides) if needs_processes(cfg) else run_one(cfg, overrides, sweep=True)
    except ConfigError as error:
        print(error, file=sys.stderr)
        entry = Entry(Outcome.REFUSED, "", str(error))
    except RunFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        entry = Entry(Outcome.FAILED, str(run_folder(cfg)), str(error))
    if not is_follower():
        ledger.add(entry.outcome, entry.folder, entry.remark)
    return entry.folder if entry.outcome is Outcome.DONE else None


def show_if_done(cfg: DictConfig) -> bool:
    """Show a run of a sweep that is done, and tell the ledger; false where it is not done."""
    folder = RunFolder(run_folder(cfg))
    if not folder.is_settled(cfg.rerun):
        return False
    show(folder, sweep=True, found=True, loggers=cfg.logger)
    Ledger.of_sweep().add(Outcome.DONE, folder.path)
    return True


def _sum_up(entries: list[Entry]) -> int:
    """Print the table of a sweep and what did not come to a result; returns the exit status."""
    done = [RunFolder(Path(entry.folder)) for entry in entries if entry.outcome is Outcome.DONE]
    records = [record for folder in done if not (record := folder.record())["trial"]]
    if len(records) > 1:
        from fisherexp.reports.table import grid, print_table

        records = [record | {"code_changed": has_changed(record)} for record in records]
        print_table(grid(records))
    lacking = [entry for entry in entries if entry.outcome not in (Outcome.DONE, Outcome.PRUNED)]
    if lacking:
        print(file=sys.stderr)
    for entry in lacking:
        print(f"{entry.outcome:<8} {entry.folder}  {entry.remark}", file=sys.stderr)
    kinds = {kind: sum(entry.outcome is kind for entry in entries) for kind in Outcome}
    if lacking:
        print(", ".join(f"{count} {kind}" for kind, count in kinds.items() if count), file=sys.stderr)
    if kinds[Outcome.FAILED] or (kinds[Outcome.REFUSED] and kinds[Outcome.REFUSED] < len(entries)):
        return FAILED
    return REFUSED if kinds[Outcome.REFUSED] else 0


def _help(overrides: list[str]) -> int:
    # Hydra's own help composes every option of every group; that takes seconds.
    try:
        options_of_run = OmegaConf.to_yaml(composed(overrides))
    except UNCOMPOSABLE as error:
        return _refuse(explain(overrides) or [" ".join(str(error).split())])
    directories = search_path()
    print(USAGE)
    for group in sorted(groups(directories)):
        found = options(group, directories)
        if group == "method":
            print("method:")
            for wing, files in by_wing(found.values()).items():
                print(f"  {wing}: {', '.join(file.stem for file in files)}")
        else:
            print(f"{group}: {', '.join(found)}")
    print("\nOptions and their defaults (change one with option=value):\n")
    print(options_of_run, flush=True)
    return 0


def _refuse(problems: list) -> int:
    for problem in problems:
        print(problem, file=sys.stderr)
    return REFUSED

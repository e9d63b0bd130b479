"""`hydra/launcher=slurm`: the runs of a sweep that are missing, as one job array, and back to the shell.

Plain sbatch and no pickled functions: each task of the array is `python -m fisherexp job <run folder>`, a single run
from the config frozen there. What Lightning or SLURM start again is therefore that run and never the sweep, and the
script can be read, printed (dry_run) and submitted by hand.
"""

import secrets
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from omegaconf import DictConfig

from fisherexp.config.problem import ConfigError, Problem
from fisherexp.config.types import Count, Size
from fisherexp.config.validate import validate
from fisherexp.files import write_text
from fisherexp.runs.code import has_changed
from fisherexp.runs.frozen import freeze
from fisherexp.runs.identity import run_folder
from fisherexp.runs.ledger import Ledger, Outcome
from fisherexp.runs.state import RunFolder, State
from fisherexp.sweeps.queue import PREFIX, QueueUnknown, submissions_folder, submitted

# SLURM's default MaxArraySize; a larger sweep becomes several arrays.
LARGEST_ARRAY = 1000

Job = tuple[DictConfig, list[str]]


@dataclass(frozen=True)
class Options:
    """As documented in conf/hydra/launcher/slurm.yaml; time in minutes, stop_before in seconds."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: Count = 60
    mem: str | None = None
    cpus_per_task: Count = 2
    gpus_per_node: Size | Literal["auto"] = "auto"
    array_parallelism: Count | None = None
    stop_before: Size = 90
    setup: list[str] = field(default_factory=list)
    sbatch: dict[str, Any] = field(default_factory=dict)
    dry_run: bool = False


@dataclass(frozen=True)
class Shape:
    """What a run needs of SLURM: processes on each of `nodes`, and GPUs there."""

    nodes: int
    processes: int
    gpus: int


def launch(jobs: list[Job], options: Options) -> None:
    """Submit those runs that are neither done nor on their way. Raises ConfigError before anything is submitted."""
    problems = [problem for cfg, _ in jobs for problem in [*validate(cfg), *_unfit(cfg)]]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    wanted = {run_folder(cfg).resolve(): (cfg, overrides) for cfg, overrides in jobs}
    output_dir = Path(jobs[0][0].output_dir)
    # Two launches of the same sweep at once: the second one sees what the first one submitted.
    output_dir.joinpath(".sweep").mkdir(parents=True, exist_ok=True)
    with FileLock(output_dir / ".sweep" / "slurm.lock"):
        done, underway, missing = _sorted(wanted, output_dir)
        for folder in done:
            _tell_done(folder)
        groups: dict[Shape, list[Path]] = {}
        for folder in missing:
            groups.setdefault(shape(wanted[folder][0], options), []).append(folder)
        for needed, folders in groups.items():
            for first in range(0, len(folders), LARGEST_ARRAY):
                _submit(folders[first : first + LARGEST_ARRAY], wanted, needed, options, output_dir)
    counts = {"done": len(done), "queued or running already": len(underway)}
    counts["to submit" if options.dry_run else "submitted"] = len(missing)
    print(", ".join(f"{count} {what}" for what, count in counts.items() if count))
    if changed := sum(has_changed(RunFolder(folder).record()) for folder in done):
        print(f"the code behind {changed} of those that are done has changed since: rerun=stale makes them again")
    if missing and not options.dry_run:
        print(f"look after them:  python -m fisherexp status -o {output_dir}")


def shape(cfg: DictConfig, options: Options) -> Shape:
    """What the run of `cfg` needs."""
    gpus = options.gpus_per_node
    if gpus == "auto":
        gpus = cfg.trainer.devices if cfg.trainer.accelerator == "gpu" else 0
    return Shape(cfg.trainer.num_nodes, cfg.trainer.devices, int(gpus))


def script(name: str, folder: Path, count: int, needed: Shape, options: Options) -> str:
    """The sbatch script of a submission of `count` runs listed in `folder`/runs.txt."""
    parallelism = f"%{options.array_parallelism}" if options.array_parallelism else ""
    settings = {
        "job-name": PREFIX + name,
        "array": f"0-{count - 1}{parallelism}",
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "time": options.time,
        "nodes": needed.nodes,
        "ntasks-per-node": needed.processes,
        "cpus-per-task": options.cpus_per_task,
        "gpus-per-node": needed.gpus or None,
        "mem": options.mem,
        "chdir": Path.cwd(),
        "output": f"{str(folder).replace('%', '%%')}/%a.log",
        "open-mode": "append",  # a requeued job goes on in the same log
        "signal": f"USR1@{options.stop_before}",
    } | options.sbatch
    lines = ["#!/bin/bash"]
    given = {option: shlex.quote(str(value)) for option, value in settings.items() if value is not None}
    lines += [f"#SBATCH --{option}={value}" for option, value in given.items()]
    lines += ["#SBATCH --requeue", ""]
    lines += ["trap : TERM  # preemption: the run below saves its state, and this shell waits for it"]
    if needed.nodes == 1 and needed.processes > 1:
        lines += ["export MASTER_ADDR=127.0.0.1  # where names of nodes are unknown, processes never meet"]
    lines += options.setup
    lines += [f"mapfile -t runs < {shlex.quote(str(folder / 'runs.txt'))}"]
    command = ["srun", "--kill-on-bad-exit=1", sys.executable, "-m", "fisherexp", "job"]
    lines += [f'{shlex.join(command)} "${{runs[$SLURM_ARRAY_TASK_ID]}}"']
    return "\n".join(lines) + "\n"


def _submit(folders: list[Path], wanted: dict[Path, Job], needed: Shape, options: Options, output_dir: Path) -> None:
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder = submissions_folder(output_dir) / name
    text = script(name, folder, len(folders), needed, options)
    if options.dry_run:
        print(text)
        print(*(shlex.join(["#", str(f), *wanted[f][1]]).replace("'#'", "#") for f in folders), "", sep="\n")
        return
    for run in folders:
        freeze(*wanted[run])
        RunFolder(run).error_file.unlink(missing_ok=True)  # if the new job is lost, it did not fail
    write_text(folder / "sbatch.sh", text)
    write_text(folder / "runs.txt", "".join(f"{run}\n" for run in folders))
    try:
        done = subprocess.run(["sbatch", "--parsable", str(folder / "sbatch.sh")], capture_output=True, text=True)
    except FileNotFoundError:
        done = None
    if done is None or done.returncode:
        (folder / "runs.txt").unlink()  # no submission
        reason = " ".join(done.stderr.split()) if done else "there is no sbatch on this machine"
        raise ConfigError([Problem("hydra/launcher=slurm", reason, None if done else "hydra/launcher=joblib")])
    print(f"job array {done.stdout.strip()}: {len(folders)} run{'s' if len(folders) > 1 else ''}, logs in {folder}")


def _sorted(wanted: dict[Path, Job], output_dir: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """(done, queued or running, missing) of the wanted runs."""
    try:
        known = submitted(output_dir)
    except QueueUnknown as error:  # without the queue nobody can say what is on its way
        raise ConfigError([Problem("hydra/launcher=slurm", str(error))]) from None
    done, underway, missing = [], [], []
    for folder, (cfg, _) in wanted.items():
        run = RunFolder(folder)
        if run.state() is State.RUNNING or (folder in known and known[folder].state):
            underway.append(folder)
        elif run.is_settled(cfg.rerun):
            done.append(folder)
        else:
            missing.append(folder)
    return done, underway, missing


def _unfit(cfg: DictConfig) -> list[Problem]:
    if isinstance(cfg.trainer.devices, int):
        return []
    return [Problem("trainer.devices=auto", "SLURM wants a number of processes a node", "trainer.devices=1")]


def _tell_done(folder: Path) -> None:
    if ledger := Ledger.of_sweep():
        ledger.add(Outcome.DONE, folder)

"""What a config asks of the machine, against what there is.

Asked where a run begins, not where it is described: sweeps are launched on smaller machines than those they go to.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from fisherexp.config.problem import Problem

# What starts processes on several machines tells each of them so; without it the first waits for the others for ever.
LAUNCHERS = ("SLURM_NTASKS", "TORCHELASTIC_RUN_ID", "MASTER_ADDR", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE")


def beyond(cfg: DictConfig) -> Iterator[Problem]:
    """Options of a run that ask for more than this machine has."""
    cores = os.cpu_count() or 1
    for option in ("threads", "trainer.devices", "data.workers"):
        number = OmegaConf.select(cfg, option)
        if isinstance(number, int) and number > cores:
            yield Problem(f"{option}={number}", f"this machine has {_cores(cores)}", f"{option}={cores}")
    nodes = OmegaConf.select(cfg, "trainer.num_nodes")
    if isinstance(nodes, int) and nodes > 1 and not any(name in os.environ for name in LAUNCHERS):
        reason = "nothing started this process on several machines (SLURM or torchrun would): it would wait for ever"
        yield Problem(f"trainer.num_nodes={nodes}", reason, "trainer.num_nodes=1")


def beyond_jobs(number: object) -> Iterator[Problem]:
    """The same of `hydra.launcher.n_jobs` of joblib, where -1 stands for every core."""
    cores = os.cpu_count() or 1
    if isinstance(number, int) and not 1 <= abs(number) <= cores:
        reason = f"some processes at once, on {_cores(cores)}; -1 for one on each"
        yield Problem(f"hydra.launcher.n_jobs={number}", reason, f"hydra.launcher.n_jobs={cores if number > 0 else -1}")


def _cores(number: int) -> str:
    return f"{number} core{'s' if number > 1 else ''}"


def available_memory() -> int | None:
    """Bytes that a process can still ask for, on Linux; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        limits = [Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current")]
        limit, used = (file.read_text(encoding="ascii").strip() if file.is_file() else "max" for file in limits)
    except OSError:
        return None
    if limit.isdigit() and used.isdigit():
        found.append(int(limit) - int(used))
    return min(found, default=None)

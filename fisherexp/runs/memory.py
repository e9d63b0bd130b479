"""Memory of the process: its peak in a run, and what is freed stays with it, for the next step to use.

A training step frees tensors of megabytes that the next one asks for again. glibc's malloc gives such blocks back to
the system and gets them again page by page, each of which the system has to clear first: with large images or
batches a large part of a step on a CPU (`scripts/bench/freed_memory.py`).
"""

import ctypes
import gc
import os
import re
import resource
import sys
from pathlib import Path

import torch
from torch import nn

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
DECIDED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES", "LD_PRELOAD")

LARGE = 2**26  # bytes of weights
COLLECTED = 2048  # MiB, from which on models of earlier runs are looked for: that takes a quarter of a second
RESET = Path("/proc/self/clear_refs")  # proc(5): 5 sets the peak to what is resident now


def free_ended_loops(model: nn.Module) -> None:
    """Free what earlier loops held, models and states of optimizers, before a loop of a large model begins.

    A Lightning trainer and its parts hold each other. Python frees such a circle when it has made enough further
    objects, however large those of the circle are: of a transformer, that can be gigabytes for many phases.
    """
    if sum(weight.nbytes for weight in model.parameters()) >= LARGE:
        gc.collect()


def keep_freed_memory() -> bool:
    """Have malloc keep what is freed, for the rest of the process; whether it does from now on.

    The peak stays what it was, give or take a tenth, but between peaks the process holds it. Nothing is done where
    the user's environment decides (another allocator, or malloc's own variables), nor outside of glibc.
    """
    if sys.platform != "linux" or any(name in os.environ for name in DECIDED):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Some versions refuse more than 32 MB, the most a block of the heap may have there.
    large = mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)
    return bool(large and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def begin_peak() -> bool:
    """Have `peak_memory` count from now on: what earlier runs of the process freed is given back, their peak forgotten.

    Returns whether it was: not outside of Linux, nor where a process may not write to its own /proc.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if RESET.exists() and _resident("VmRSS") > COLLECTED:
        gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
    try:
        RESET.write_text("5")
    except OSError:
        return False
    return True


def peak_memory(forgotten: bool) -> dict[str, float]:
    """MiB since `begin_peak`, which said whether the earlier peak was `forgotten`: memory_mib, the largest resident
    memory of this process; gpu_memory_mib, the most that was allocated of the GPU. Where it was not, the first is
    process_memory_mib, the peak of all runs of the process so far.

    Libraries that are loaded, and what earlier runs of the process left in its caches, are part of it.
    """
    if forgotten:
        peak = {"memory_mib": _resident("VmHWM")}
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = {"process_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}
    if torch.cuda.is_available():
        peak["gpu_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return peak


def _resident(which: str) -> float:
    """MiB, as Linux counts what is resident: VmRSS, now; VmHWM, the peak."""
    return int(re.search(rf"{which}:\s+(\d+) kB", RESET.with_name("status").read_text())[1]) / 1024

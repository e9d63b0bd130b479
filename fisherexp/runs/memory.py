"""Freed memory stays with the process, for the next step to use.

A training step frees tensors of megabytes that the next one asks for again. glibc's malloc gives such blocks back to
the system and gets them again page by page, each of which the system has to clear first: with large images or
batches a large part of a step on a CPU (`scripts/bench/freed_memory.py`).
"""

import ctypes
import gc
import os
import sys

from torch import nn

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
DECIDED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES", "LD_PRELOAD")

LARGE = 2**26  # bytes of weights


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

"""Memory that a matrix will take, said before it is made, and refused where it cannot fit."""

import logging
import os
from math import prod

import torch

log = logging.getLogger(__name__)
GIB = 2**30
WORTH_SAYING = GIB  # bytes


def announce(what: str, *shape: int, copies: int = 1, dtype: torch.dtype = torch.float64, advice: str) -> int:
    """Bytes of `copies` arrays of this shape and type. Said in one line where they are a gibibyte or more.

    Raises ValueError, in one line with `advice`, where they are more than the memory of this machine.
    """
    needed = dtype.itemsize * copies * prod(shape)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    size = f"{what} ({' × '.join(map(str, shape))}) takes {needed / GIB:.1f} GiB"
    if needed > there:
        raise ValueError(f"{size}, of {there / GIB:.1f} GiB there are; {advice}")
    if needed >= WORTH_SAYING:
        log.info(size)
    return needed

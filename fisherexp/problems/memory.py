"""The memory that an instance of transport needs: said before it begins where it is much, refused where it lacks."""

import os
import sys
from pathlib import Path

import torch

from fisherexp.data.errors import DataError

# Of the size of a part, at once, in a Newton step: costs, plan, exponents, what sums are made of. As measured.
MATRICES = 10
MUCH = 2**30


def needed(n: int, m: int, rows: int, dtype: torch.dtype = torch.float64) -> int:
    """Bytes, of n × m costs of which `rows` rows are there at once, and of points and potentials."""
    return dtype.itemsize * (MATRICES * rows * m + 20 * (n + m))


def available() -> int:
    """Bytes this machine has left: what Linux says is available, elsewhere all there is."""
    told = Path("/proc/meminfo")
    if told.is_file():
        lines = dict(line.split(":") for line in told.read_text(encoding="utf-8").splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def refuse_what_does_not_fit(n: int, m: int, rows: int, dtype: torch.dtype, remedy: str) -> None:
    """One line on stderr where the matrix comes in parts or needs much memory. Raises DataError, with the remedy, where
    it needs more than there is."""
    bytes_, left = needed(n, m, rows, dtype), available()
    how = f"in {-(-n // rows)} parts of {rows} rows" if rows < n else "whole"
    said = f"{n} x {m} costs, {how}: about {bytes_ / 1e9:.2g} GB of memory, {left / 1e9:.2g} GB are available"
    if bytes_ > left:
        raise DataError(f"{said}; choose {remedy}")
    if rows < n or bytes_ > MUCH:
        print(said, file=sys.stderr)

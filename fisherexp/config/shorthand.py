"""Spellings that Hydra does not know: `source.data=cifar10` for its `data@source.data=cifar10`, and `experiment=null`.

Hydra chooses a file only by its group's name, wherever it is put, and takes no null for a choice. Whatever reads
overrides passes them through `native` (or `natives`) first; what it hands on, a run's record and a sweep's lines, has
Hydra's spelling.
"""

import re
from collections.abc import Iterable

GROUPS = ("data", "training")
# One option, several of a sweep, or a sweep spelt out; not a value such as {…}, […] or ${…}.
NAMES = re.compile(r"[\w-]+(\s*,\s*[\w-]+)*|(choice|glob)\(.*\)")
NO_EXPERIMENT = ("experiment=null", "experiment=None")
SHORT = re.compile(rf"source\.({'|'.join(GROUPS)})=(.*)", re.DOTALL)


def native(line: str) -> str:
    """An override in Hydra's spelling; any other argument as it is."""
    found = SHORT.fullmatch(line)
    if not found or not NAMES.fullmatch(found[2].strip()):
        return line
    return f"{found[1]}@source.{found[1]}={found[2]}"


def natives(lines: Iterable[str]) -> list[str]:
    """The same of several, without the choice of no experiment, which is what a run begins with."""
    return [native(line) for line in lines if line not in NO_EXPERIMENT]

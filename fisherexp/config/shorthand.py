"""A short spelling of choices within the source: `source.data=cifar10` for Hydra's `data@source.data=cifar10`.

Hydra chooses a file only by its group's name, wherever it is put. Whatever reads overrides passes them through `native`
first; what it hands on, a run's record and a sweep's lines, has Hydra's spelling.
"""

import re

GROUPS = ("data", "training")
# One option, several of a sweep, or a sweep spelt out; not a value such as {…}, […] or ${…}.
NAMES = re.compile(r"[\w-]+(\s*,\s*[\w-]+)*|(choice|glob)\(.*\)")
SHORT = re.compile(rf"source\.({'|'.join(GROUPS)})=(.*)", re.DOTALL)


def native(line: str) -> str:
    """An override in Hydra's spelling; any other argument as it is."""
    found = SHORT.fullmatch(line)
    if not found or not NAMES.fullmatch(found[2].strip()):
        return line
    return f"{found[1]}@source.{found[1]}={found[2]}"

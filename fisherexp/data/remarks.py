"""What reading data leaves to be said: once to the user, and in the run's record."""

import functools
import sys
from collections.abc import Mapping, Sequence

from fisherexp.ranks import is_follower

SHOWN = 10  # of each kind; the record has all
Remarks = dict[str, Mapping[str, int] | Sequence[str]]  # a kind of remark -> how often what, or simply what


def say(where: object, remarks: Remarks) -> None:
    """One line, once in a process, unless there is nothing to say."""
    if not remarks or is_follower():
        return
    parts = []
    for kind, found in remarks.items():
        counted = [f"{count} {what}" for what, count in sorted(found.items())] if isinstance(found, Mapping) else found
        more = f" and {len(counted) - SHOWN} more" if len(counted) > SHOWN else ""
        parts.append(f"{kind}: {', '.join(counted[:SHOWN])}{more}")
    _say_once(f"{where}: {'; '.join(parts)}")


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)

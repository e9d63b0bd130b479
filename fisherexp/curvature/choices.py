"""Named choices: an unknown name is refused with the nearest valid one and the whole list."""

from collections.abc import Iterable
from difflib import get_close_matches


def check_choice(what: str, given: object, valid: Iterable[str]) -> str:
    """Return `given` if it is one of `valid`; otherwise raise ValueError naming the nearest valid choice."""
    valid = list(valid)
    if given in valid:
        return str(given)
    nearest = get_close_matches(str(given), valid, n=1, cutoff=0.0)
    raise ValueError(f"{what} {given!r} is unknown; did you mean {nearest[0]!r}? Valid: {', '.join(valid)}.")

"""Named choices: an unknown name is refused with the nearest valid one, and the whole list where it is short."""

from collections.abc import Iterable
from difflib import get_close_matches

LISTED = 20  # names that a reader looks through; of more, the nearest


def check_choice(what: str, given: object, valid: Iterable[str]) -> str:
    """Return `given` if it is one of `valid`; otherwise raise ValueError naming the nearest valid choice."""
    valid = list(valid)
    if given in valid:
        return str(given)
    nearest = get_close_matches(str(given), valid, n=3, cutoff=0.0)
    others = (
        f"Valid: {', '.join(valid)}." if len(valid) <= LISTED else f"Nearest of {len(valid)}: {', '.join(nearest)}."
    )
    raise ValueError(f"{what} {given!r} is unknown; did you mean {nearest[0]!r}? {others}")

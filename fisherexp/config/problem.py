"""What is wrong with a config, said so that it can be put right."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

LONG = 240  # signs of an option and its value that are repeated


@dataclass(frozen=True)
class Problem:
    """One wrong option: what, why, and the nearest valid choice (None where the default is the best advice)."""

    option: str
    reason: str
    nearest: str | None = None

    def __str__(self) -> str:
        advice = f"; nearest valid: {self.nearest}" if self.nearest else ""
        option = self.option if len(self.option) <= LONG else f"{self.option[:LONG]}…"
        return f"{option}: {self.reason}{advice}"


class ConfigError(Exception):
    """A config that cannot be run. `str()` is one line a problem."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `name`, if any is like it at all; capitals do not count."""
    names = {known.lower(): known for known in valid}
    return next((names[near] for near in difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.4)), None)


def shortened(text: str) -> str:
    """A text as a line can repeat it."""
    return text if len(text) <= 80 else f"{text[:40]}…"

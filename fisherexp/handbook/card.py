"""What is said of one method, gathered from its config file, its class and the header of its module."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fisherexp.catalogue import Entry, at_home, entries, wing
from fisherexp.config.declared import TargetNotFound, header_of
from fisherexp.config.locations import target
from fisherexp.handbook.options import Option, options_of

ARXIV = re.compile(r"arXiv[: ]\s*(\d{4}\.\d{4,5})")
INDENT = "    "
KINDS = ("supervised",)  # what a method is about that says nothing of it
STARTS = {"scratch": "new weights, which it trains", "source": "the weights of a source model"}


@dataclass(frozen=True)
class Card:
    """sentence: the first line of the config file, else of the module's header. equation: the header's indented lines.
    published: data set -> metric -> figures. requires: what it takes, a phrase each."""

    name: str
    wing: str
    sentence: str
    paper: str
    arxiv: str | None
    equation: str
    line: str
    at_home: str
    target: str
    requires: list[str] = field(default_factory=list)
    options: list[Option] = field(default_factory=list)
    published: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)


def cards(extra: Sequence[str] = ()) -> dict[str, list[Card]]:
    """Wing -> cards of its methods, both in alphabetical order. extra: further entries of the search path."""
    found: dict[str, list[Card]] = {}
    for entry in entries("method", list(extra)):
        found.setdefault(wing(entry.file).replace("_", " "), []).append(card(entry))
    return dict(sorted(found.items()))


def card(entry: Entry) -> Card:
    """The card of one method."""
    made = target(entry.file) or ""
    try:
        header = header_of(made)
    except TargetNotFound:
        header = ""
    arxiv = ARXIV.search(entry.paper)
    return Card(
        entry.name,
        wing(entry.file).replace("_", " "),
        entry.description or header.partition("\n")[0].rstrip("."),
        entry.paper,
        arxiv and arxiv[1],
        equation(header),
        f"python run.py method={entry.name}",
        at_home(entry),
        made,
        requirements(entry),
        options_of(entry.file),
        entry.attributes.get("published", {}),
    )


def equation(header: str) -> str:
    """The indented lines of a docstring that stand apart from its prose, without their indentation. Lines indented by
    less continue an item of a list."""
    lines, block, blank = header.splitlines(), [], True
    for line in lines:
        if line.startswith(INDENT) and (blank or (block and block[-1])):
            block.append(line.removeprefix(INDENT))
        elif block and block[-1]:
            block.append("")
        blank = not line.strip()
    return "\n".join(block).strip("\n")


def requirements(entry: Entry) -> list[str]:
    """What a method takes, in words."""
    declares, found = entry.attributes, []
    if (kinds := declares.get("problems", KINDS)) != KINDS:
        found.append(f"a problem of kind {' or '.join(kinds)}")
    if not declares.get("uses_model", True):
        found.append("no network")
    elif start := declares.get("start"):
        found.append(STARTS.get(start, f"the weights of the {start}"))
    if scenarios := declares.get("scenarios", ()):
        found.append(f"a scenario of kind {' or '.join(scenarios)}")
    if required := declares.get("requires", ()):
        found.append(f"data and model with {', '.join(word.replace('_', ' ') for word in required)}")
    return found

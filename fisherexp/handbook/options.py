"""Options of a config file with their defaults and comments, as somebody who opens the file reads them."""

import re
from dataclasses import dataclass
from pathlib import Path

KEY = re.compile(r"^( *)([\w@/]+):(?: +(.*))?$")
TRAILING = re.compile(r"\s+#\s.*$")
HIDDEN = ("_target_", "_partial_", "_recursive_", "_convert_", "defaults")


@dataclass(frozen=True)
class Option:
    """key: dotted below the file's node; default: as written; comment: that above it, or behind it in its line."""

    key: str
    default: str
    comment: str


def options_of(file: Path) -> list[Option]:
    """The options of a config file in its order. A node that holds further options is none itself. Comments that no
    option follows, and those above `defaults` and `_target_`, are left out."""
    found: list[Option] = []
    nodes: list[tuple[int, str, str]] = []  # (indentation, key, comment) of the nodes around the line
    comment: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.strip().lstrip("# "))
            continue
        if (match := KEY.match(line)) is None:
            continue
        indent, name, value = len(match[1]), match[2], match[3] or ""
        while nodes and nodes[-1][0] >= indent:
            nodes.pop()
        said, comment = comment, []
        if name in HIDDEN or any(node[1] in HIDDEN for node in nodes):
            nodes.append((indent, name, ""))
            continue
        if behind := TRAILING.search(value):
            said, value = [*said, behind[0].strip().lstrip("# ")], value[: behind.start()]
        if not value:
            nodes.append((indent, name, " ".join(said)))
            continue
        path = ".".join([*(node[1] for node in nodes), name])
        if nodes and nodes[-1][2]:  # what is said of the node stands beside its first option
            said = [nodes[-1][2], *said]
            nodes[-1] = (*nodes[-1][:2], "")
        found.append(Option(path, value, " ".join(said)))
    return found

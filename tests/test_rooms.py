"""No import runs upwards: every room imports only from floors below its own (docs/architecture.md)."""

import ast
import re
from pathlib import Path

import fisherexp

PACKAGE = Path(fisherexp.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"


def floors() -> dict[str, int]:
    """Room -> floor, as the page has it."""
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {room.strip(" `").partition("/")[0]: int(floor) for floor, rooms in rows for room in rooms.split(",")}


def imports() -> list[tuple[str, str, str]]:
    """(file, room, imported room) of every import of a room of ours, within functions too."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE)
        room = place.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [f"fisherexp.{a.name}" for a in node.names] if names == ["fisherexp"] else []
            for name in names:
                if name.startswith("fisherexp."):
                    found.append((str(place), room, name.split(".")[1]))
    return found


def upward(edges: list[tuple[str, str, str]], floor: dict[str, int]) -> list[str]:
    up = (e for e in edges if e[1] != e[2] and floor[e[2]] >= floor[e[1]])
    return [f"{file} imports {other}" for file, _, other in up]


def test_every_room_has_a_floor():
    rooms = {room for _, room, _ in imports()} - {"__init__", "__main__"}
    assert rooms <= set(floors()), rooms - set(floors())


def test_no_import_runs_upwards():
    edges = [edge for edge in imports() if edge[1] not in ("__init__", "__main__")]
    assert upward(edges, floors()) == []


def test_an_import_that_runs_upwards_is_found():
    assert upward([("data/x.py", "data", "methods")], floors()) == ["data/x.py imports methods"]

"""Modules of the project and of its users, read and never imported: their statements, and what these mention."""

import ast
import functools
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fisherexp.runs.module_files import module_file

BLOCKS = ast.If | ast.Try | ast.With | ast.For | ast.While
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
IMPORTS = ast.Import | ast.ImportFrom


@dataclass(frozen=True)
class Imported:
    """What an import statement binds a name to: a module, or what a module has under the name `attribute`."""

    module: str
    attribute: str | None = None


@dataclass(frozen=True)
class Mentions:
    """What a piece of code says. shape: its syntax without docstrings, comments and layout.

    names: global and local names, as far as they are dotted: `np.linalg.norm`. words: string constants.
    imports: those of its functions, by name. stars: modules of `from … import *`.
    """

    shape: str
    names: frozenset[str]
    words: frozenset[str]
    imports: dict[str, list[Imported]]
    stars: frozenset[str]


@dataclass(eq=False)
class Statement:
    """One statement of a module, outside of functions and classes. package: that relative imports start from.

    lazy: nothing happens unless somebody mentions a name that it binds.
    """

    nodes: list[ast.AST]
    package: str
    lazy: bool

    @cached_property
    def mentions(self) -> Mentions:
        return mentions(self.nodes, self.package)

    @cached_property
    def members(self) -> dict[str, "Statement"]:
        """Of a class: its methods by name, and under '' everything else, together with what makes an instance."""
        (node,) = self.nodes
        if not isinstance(node, ast.ClassDef):
            return {}
        methods = [item for item in node.body if isinstance(item, DEFINITIONS)]
        found = {m.name: [other for other in methods if other.name == m.name] for m in methods}
        rest = [item for item in _without_docstring(node.body) if item not in methods] + found.pop("__init__", [])
        found[""] = [*node.bases, *node.keywords, *node.decorator_list, *rest]
        return {name: Statement(nodes, self.package, lazy=True) for name, nodes in found.items()}


@dataclass(eq=False)
class Module:
    """A module that was read. statements: in their order. bindings: name -> what may define it.

    imports: of the module itself, which run when it is imported. stars: modules of `from … import *`. effects: modules
    that it imports and does not mention again.
    """

    name: str
    file: Path
    statements: list[Statement] = field(default_factory=list)
    bindings: dict[str, list[Statement | Imported]] = field(default_factory=dict)
    imports: list[Imported] = field(default_factory=list)
    stars: list[str] = field(default_factory=list)
    effects: list[str] = field(default_factory=list)


def read_module(module: str) -> Module | None:
    """A module of the project or of a user, None where it has no file.

    What a process has imported does not change with the file: once it was read, it is read again only if the process
    has not imported it, or has reloaded it. Raises SyntaxError.
    """
    file = module_file(module)
    if file is None:
        return None
    status = file.stat()
    stamp, loaded = (
        (status.st_size, status.st_mtime_ns, status.st_ino),
        getattr(sys.modules.get(module), "__spec__", None),
    )
    if found := _read.get(file):
        known, spec, before = found
        if known == stamp or (loaded is not None and (spec is None or spec is loaded)):
            if spec is None and loaded is not None:
                _read[file] = known, loaded, before
            return before
    made = _parsed(module, file)
    _read[file] = stamp, loaded, made
    return made


_read: dict[Path, tuple[tuple, object, Module]] = {}  # file -> its stamp, the spec it was imported by, what it says


def mentions(nodes: list[ast.AST], package: str) -> Mentions:
    """What some pieces of code say; see Mentions."""
    shape: list[str] = []
    names: set[str] = set()
    words: set[str] = set()
    imports: dict[str, list[Imported]] = {}
    stars: set[str] = set()

    def visit(node: object) -> None:
        kind = type(node)
        if kind is list:
            shape.append("[")
            for item in node:
                visit(item)
            shape.append("]")
            return
        fields = _fields(kind)
        if fields is None:
            shape.append(f"{kind.__name__}:{node!r}")
            return
        if kind is ast.Name or kind is ast.Attribute:
            dotted = _dotted(node)
            if dotted is not None:
                names.add(dotted)
                shape.append(dotted)
                return
        elif kind is ast.Constant:
            if type(node.value) is str:
                words.add(node.value)
        elif kind is ast.Import or kind is ast.ImportFrom:
            for name, imported in _imported(node, package, stars):
                imports.setdefault(name, []).append(imported)
        shape.append(kind.__name__)
        for name in fields:
            value = getattr(node, name, None)
            if value is None or value == []:
                continue
            if name == "body" and isinstance(node, DEFINITIONS):
                value = _without_docstring(value)
            shape.append(name)
            visit(value)

    visit(nodes)
    return Mentions("\0".join(shape), frozenset(names), frozenset(words), imports, frozenset(stars))


@functools.cache
def _fields(kind: type) -> tuple[str, ...] | None:
    """The fields of a node that say something; None for what is no node."""
    unsaid = ("ctx", "kind", "type_comment")
    return tuple(name for name in kind._fields if name not in unsaid) if issubclass(kind, ast.AST) else None


def _parsed(name: str, file: Path) -> Module:
    text = file.read_text(encoding="utf-8")
    tree, counts = ast.parse(text, str(file)), Counter(re.findall(r"\w+", text))
    made = Module(name, file)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in tree.body:
        if isinstance(node, IMPORTS):
            stars: set[str] = set()
            for bound, imported in _imported(node, package, stars):
                made.imports.append(imported)
                made.bindings.setdefault(bound, []).append(imported)
                if counts[bound] == 1:
                    made.effects.append(imported.module)
            made.stars += sorted(stars)
        elif not _is_docstring(node):
            statement = Statement([node], package, _is_lazy(node))
            made.statements.append(statement)
            for bound in dict.fromkeys(_bound(node)):
                made.bindings.setdefault(bound, []).append(statement)
            if isinstance(node, BLOCKS):  # its imports are module-wide
                for bound, found in statement.mentions.imports.items():
                    made.bindings.setdefault(bound, []).extend(found)
                    made.imports += found
                made.stars += sorted(statement.mentions.stars)
    return made


def _is_lazy(node: ast.stmt) -> bool:
    if isinstance(node, DEFINITIONS):
        plain = all(_dotted(d.func if isinstance(d, ast.Call) else d) in INERT for d in node.decorator_list)
        return plain and not getattr(node, "keywords", None)  # a metaclass may do anything
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        calls = node.value is not None and any(isinstance(n, ast.Call) for n in ast.walk(node.value))
        return all(isinstance(target, ast.Name) for target in targets) and not calls
    return False


# Decorators that leave no trace but the name they decorate. Others may register it somewhere.
INERT = {
    "abstractmethod",
    "cache",
    "contextmanager",
    "dataclass",
    "dataclasses.dataclass",
    "functools.cache",
    "functools.lru_cache",
    "functools.wraps",
    "lru_cache",
    "torch.no_grad",
    "wraps",
}


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that a statement binds in its module."""
    if isinstance(node, DEFINITIONS):
        yield node.name
        return
    if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
        yield node.id
    for child in ast.iter_child_nodes(node):
        yield from _bound(child)


def _imported(node: ast.Import | ast.ImportFrom, package: str, stars: set[str]) -> Iterator[tuple[str, Imported]]:
    """(name, what it is bound to) of an import statement; modules whose names are all imported go to `stars`."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.asname:
                yield alias.asname, Imported(alias.name)
            else:
                yield alias.name.partition(".")[0], Imported(alias.name.partition(".")[0])
                yield f"import {alias.name}", Imported(alias.name)  # no name of the module, but it is executed
        return
    origin = node.module or ""
    if node.level:
        parents = package.split(".")
        above = ".".join(parents[: len(parents) - node.level + 1])
        origin = ".".join(filter(None, [above, origin]))
    for alias in node.names:
        if alias.name == "*":
            stars.add(origin)
        else:
            yield alias.asname or alias.name, Imported(origin, alias.name)


def _dotted(node: ast.AST) -> str | None:
    """`a.b.c`, where that is all there is."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    return body[1:] if body and _is_docstring(body[0]) else body


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)

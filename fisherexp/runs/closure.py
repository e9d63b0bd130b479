"""Everything of the project's and its users' code that some classes and functions work with, by static analysis.

It starts from definitions and follows the names they mention through imports, to the definitions these name and so on.
A module that is reached is also executed: its statements count, but for definitions and constants that nobody mentions.
Where a name cannot be followed (a module handed on as a value, getattr, `import *`), the whole module counts. Files
beside a module count where it asks for its own place (`__file__`). Installed distributions do not count, but for what
is imported from them under which name.
"""

import fnmatch
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fisherexp.runs.module_files import is_ours, module_file
from fisherexp.runs.modules import Imported, Module, Statement, read_module

ANYTHING = {"eval", "exec", "globals", "locals", "vars"}  # whoever mentions them may use any name of the module
DYNAMIC = {"__import__", "import_module", "iter_modules", "walk_packages"}  # … any module of the package
RELATIVES = {"__subclasses__", "__init_subclass__"}  # … any class that is executed
PLACE = {"__file__", "__path__", "__package__", "__spec__", "resources", "get_data"}  # … files beside the module
PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
DEPTH = 4  # of folders in which files beside a module are looked for


class NotFound(LookupError):
    """There is no code under this name."""


@dataclass(frozen=True)
class Closure:
    """shapes: module -> what its reached statements say. modules: those that were read. files: data beside them."""

    shapes: dict[str, list[str]]
    modules: dict[str, Module]
    files: dict[str, Path]


def closure(roots: Iterable[str], counts: Callable[[str], bool]) -> Closure:
    """What `package.module.Name` or `package.module.Class.member` work with, for each root.

    Of a member only what it needs of its class counts, as far as it asks for it by `self`. counts: whether what a
    module says is followed at all. Raises NotFound for a root in no module.
    """
    search = _Search(counts)
    for root in sorted(set(roots)):
        search.root(root)
    return search.finished()


class _Search:
    def __init__(self, counts: Callable[[str], bool]) -> None:
        self.counts = counts
        self.modules: dict[str, Module] = {}
        self.reached: dict[str, dict[Statement, None]] = {}
        self.foreign: dict[str, set[str]] = {}
        self.tops: set[str] = set()
        self.asked: dict[str, set[str]] = {}  # module that asks for its place -> words it says
        self.files: dict[str, Path] = {}
        self.waiting: list[tuple[Module, Statement]] = []
        self.widened: set[str] = set()
        self.following: set[tuple] = set()  # (module, names…) that are being followed, and that were
        self.followed: set[tuple] = set()
        self.relatives = False

    def root(self, target: str) -> None:
        top = target.partition(".")[0]
        names = target.split(".")
        for cut in range(len(names), 0, -1):
            name = ".".join(names[:cut])
            if module_file(name) is not None and is_ours(name):
                self.tops.add(top)
                self.follow(name, names[cut:], member=True)
                return
        if is_ours(top) or not _exists(top):
            raise NotFound(f"there is no module to take '{target}' from")

    def finished(self) -> Closure:
        while self.waiting:
            while self.waiting:
                self.read(*self.waiting.pop())
            if self.relatives:
                for module in list(self.modules.values()):
                    self.whole(module.name)
        for name, words in self.asked.items():
            for file in _beside(self.modules[name].file.parent, words):
                self.files[f"{name}:{os.path.relpath(file, self.modules[name].file.parent)}"] = file
        shapes = {}
        for name, module in self.modules.items():
            reached = self.reached[name]
            ordered = [s for s in module.statements if s in reached and not s.lazy]
            # Members are no statements of the module itself.
            others = sorted(s.mentions.shape for s in reached if s not in set(ordered))
            shapes[name] = [*(s.mentions.shape for s in ordered), *others, *sorted(self.foreign[name])]
        return Closure(shapes, dict(self.modules), self.files)

    # --- what is reached -----------------------------------------------------------------------------------

    def execute(self, name: str) -> Module | None:
        """The module is imported, and every package around it; None where it does not count or has no file."""
        if name in self.modules:
            return self.modules[name]
        if not is_ours(name) or not self.counts(name):
            return None
        if parent := name.rpartition(".")[0]:
            self.execute(parent)
        module = read_module(name)
        if module is None or name in self.modules:
            return module
        self.modules[name], self.reached[name] = module, {}
        self.foreign[name] = {f"import {effect}" for effect in module.effects if not is_ours(effect)}
        for statement in module.statements:
            if not statement.lazy:
                self.reach(module, statement)
        for imported in module.imports:
            self.load(imported)
        for star in module.stars:
            self.whole(star)
        return module

    def load(self, imported: Imported) -> None:
        """An import statement runs, whoever uses what it binds."""
        self.execute(imported.module)
        if imported.attribute and is_ours(imported.module):
            submodule = f"{imported.module}.{imported.attribute}"
            if module_file(submodule) is not None:
                self.execute(submodule)

    def reach(self, module: Module, statement: Statement) -> None:
        if statement not in self.reached[module.name]:
            self.reached[module.name][statement] = None
            self.waiting.append((module, statement))

    def whole(self, name: str) -> None:
        if (module := self.execute(name)) and name not in self.widened:
            self.widened.add(name)
            for statement in module.statements:
                self.reach(module, statement)
            for bindings in module.bindings.values():
                for bound in bindings:
                    if isinstance(bound, Imported):
                        self.name_of(module, bound, [], "")

    # --- names ---------------------------------------------------------------------------------------------

    def read(self, module: Module, statement: Statement) -> None:
        """Follow everything a reached statement mentions."""
        said = statement.mentions
        for found in said.imports.values():
            for imported in found:
                self.load(imported)
        for star in said.stars:
            self.whole(star)
        for dotted in said.names:
            parts = dotted.split(".")
            for imported in said.imports.get(parts[0], ()):
                self.name_of(module, imported, parts[1:], parts[0])
            self.look_up(module, parts)
            last = parts[-1]
            if dotted in ANYTHING:
                self.whole(module.name)
            if last in DYNAMIC:
                self.package(module)
            if last in RELATIVES and not self.relatives:
                self.relatives = True
                self.waiting.append((module, statement))  # so that classes reached later are met, too
            if PLACE & set(parts):
                self.asked.setdefault(module.name, set())
        for word in said.words:
            if PATH.fullmatch(word) and word.partition(".")[0] in self.tops | {module.name.partition(".")[0]}:
                self.by_word(word)
        if "str:'__init_subclass__'" in said.shape:  # defined here
            self.relatives = True
        if module.name in self.asked:
            self.asked[module.name] |= {w for s in self.reached[module.name] for w in s.mentions.words}

    def look_up(self, module: Module, parts: list[str], member: bool = False) -> bool:
        """Follow a name of a module; whether it has it."""
        bindings = module.bindings.get(parts[0], ())
        for bound in bindings:
            if isinstance(bound, Imported):
                self.name_of(module, bound, parts[1:], parts[0])
            elif member and len(parts) > 1 and parts[1] in bound.members:
                self.member(module, bound, parts[1])
            else:
                self.reach(module, bound)
        return bool(bindings)

    def member(self, module: Module, owner: Statement, name: str) -> None:
        """A member of a class: what makes an instance, it, and what it asks `self` for."""
        waiting, met = ["", name], set()
        while waiting:
            member = owner.members[waiting.pop()]
            if member in met:
                continue
            met.add(member)
            for dotted in member.mentions.names:
                head, _, rest = dotted.partition(".")
                if head in ("self", "cls"):
                    asked = rest.partition(".")[0]
                    if not asked and head == "self":  # handed on: anything may be asked of it
                        self.reach(module, owner)
                    if asked in owner.members:
                        waiting.append(asked)
            self.reach(module, member)

    def name_of(self, module: Module, imported: Imported, rest: list[str], name: str) -> None:
        """Follow what a name is bound to by an import, and what is asked of it."""
        if not is_ours(imported.module):
            self.foreign[module.name].add(f"{name} is {imported.module}:{imported.attribute or ''}")
            return
        if not self.counts(imported.module):
            return
        self.follow(imported.module, [imported.attribute, *rest] if imported.attribute else rest)

    def follow(self, name: str, rest: list[str], member: bool = False) -> None:
        """What a module has under a dotted name; the whole module where that cannot be told."""
        asked = (name, *rest, member)
        if asked in self.followed:
            return
        # `from package import submodule` in the package itself leads back here: then it is the submodule.
        circular = asked in self.following
        self.following.add(asked)
        module = self.execute(name)
        if not rest:
            self.whole(name)
        elif module is not None and not circular and self.look_up(module, rest, member):
            pass
        elif module_file(f"{name}.{rest[0]}") is not None:
            if self.counts(f"{name}.{rest[0]}"):
                self.follow(f"{name}.{rest[0]}", rest[1:], member)
        elif module is not None and rest[0] not in ("__name__", "__doc__"):
            self.whole(name)
            for file in module.file.parent.glob(f"{rest[0]}.*"):  # compiled
                self.files[f"{name}:{file.name}"] = file
        self.following.discard(asked)
        self.followed.add(asked)

    def by_word(self, word: str) -> None:
        """A string that names a module, or something in one: whoever says it may import it."""
        names = word.split(".")
        for cut in range(len(names), 0, -1):
            name = ".".join(names[:cut])
            if module_file(name) is not None:
                if self.counts(name) and (cut == len(names) or names[cut] in read_module(name).bindings):
                    self.follow(name, names[cut:])
                return

    def package(self, module: Module) -> None:
        """Every module of the package around a module."""
        name = module.name if module.file.name == "__init__.py" else module.name.rpartition(".")[0]
        if not name:
            return
        root = module.file.parent
        for file in sorted(root.rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            if all(part.isidentifier() for part in parts):
                self.whole(".".join([name, *(part for part in parts if part != "__init__")]))


def _exists(top: str) -> bool:
    import importlib.util
    import sys

    try:
        return top in sys.modules or importlib.util.find_spec(top) is not None
    except ValueError:
        return True


def _beside(folder: Path, words: set[str]) -> list[Path]:
    """Files of data that code in `folder` reads: those that its words name, also in folders that they name; all files
    of a folder that is named and in which no file is; where nothing is named, all files in `folder`."""
    words = {word for word in words if 0 < len(word) < 200 and word.strip("./") and not os.path.isabs(word)}
    found: set[Path] = set()
    named = _named(folder, words, found, DEPTH)
    if not found and not named:
        found = {Path(entry) for entry in os.scandir(folder) if entry.is_file()}
    return sorted(file for file in found if file.suffix not in (".py", ".pyc") and not file.name.startswith("."))


def _named(folder: Path, words: set[str], found: set[Path], depth: int) -> bool:
    """Add the files that words name below `folder`; whether they name a folder there."""
    named = False
    patterns = {word for word in words if set("*?[") & set(word)}
    slashed = {word for word in words if "/" in word}
    there = [Path(entry) for entry in os.scandir(folder) if entry.name != "__pycache__"]
    there += [folder / word for word in slashed - patterns if (folder / word).exists() and ".." not in word]
    for path in there:
        relative = path.relative_to(folder).as_posix()
        if path.is_dir() and relative in words and depth and not (path / "__init__.py").exists():
            before = len(found)
            if not _named(path, words, found, depth - 1) and len(found) == before:
                found |= {file for file in path.rglob("*") if file.is_file()}
            named = True
        elif path.is_file() and (relative in words or any(fnmatch.fnmatch(path.name, p) for p in patterns)):
            found.add(path)
    return named

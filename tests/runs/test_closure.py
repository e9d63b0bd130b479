"""What an edit does to the hash of code: a table of small packages, one edit each."""

import itertools
from pathlib import Path

import pytest

from fisherexp.content import look_again
from fisherexp.runs.closure import NotFound
from fisherexp.runs.code import code_of

numbers = itertools.count()

# Each: files of a package P, the file that is edited, what is replaced by what. The hash is that of P.main.make.
# `make` is in main.py; {P} stands for the package's name.
COUNTS = {
    "the body of a function that is used": (
        {"main.py": "from {P}.other import f\ndef make(): return f(1)", "other.py": "def f(x): return x"},
        ("other.py", "return x", "return -x"),
    ),
    "a default value": ({"main.py": "def make(lr=0.1): return lr"}, ("main.py", "0.1", "0.2")),
    "the type of a constant": ({"main.py": "def make(): return 1"}, ("main.py", "1", "1.0")),
    "a constant that is used": ({"main.py": "N = 3\ndef make(): return N"}, ("main.py", "3", "4")),
    "a constant of a constant": ({"main.py": "A = 3\nB = A\ndef make(): return B"}, ("main.py", "3", "4")),
    "a default taken from a constant": ({"main.py": "N = 3\ndef make(n=N): return n"}, ("main.py", "3", "4")),
    "a relative import": (
        {"main.py": "from .other import f\ndef make(): return f()", "other.py": "def f(): return 1"},
        ("other.py", "1", "2"),
    ),
    "a relative import from above": (
        {
            "main.py": "from .sub.deep import g\ndef make(): return g()",
            "sub/__init__.py": "",
            "sub/deep.py": "from ..other import f\ndef g(): return f()",
            "other.py": "def f(): return 1",
        },
        ("other.py", "1", "2"),
    ),
    "an import inside a function": (
        {"main.py": "def make():\n    from {P} import other\n    return other.f()", "other.py": "def f(): return 1"},
        ("other.py", "1", "2"),
    ),
    "a module by its dotted name": (
        {"main.py": "import {P}.other\ndef make(): return {P}.other.f()", "other.py": "def f(): return 1"},
        ("other.py", "1", "2"),
    ),
    "a module under another name": (
        {"main.py": "import {P}.other as o\ndef make(): return o.f()", "other.py": "def f(): return 1"},
        ("other.py", "1", "2"),
    ),
    "what a package's face passes on": (
        {
            "main.py": "from {P}.sub import f\ndef make(): return f()",
            "sub/__init__.py": "from {P}.sub.deep import f",
            "sub/deep.py": "def f(): return 1",
        },
        ("sub/deep.py", "1", "2"),
    ),
    "a package whose face imports its own modules": (
        {
            "main.py": "from {P} import sub\ndef make(): return sub.deep.f()",
            "sub/__init__.py": "from {P}.sub import deep",
            "sub/deep.py": "def f(): return 1",
        },
        ("sub/deep.py", "1", "2"),
    ),
    "which of two definitions a name means": (
        {
            "main.py": "from {P}.other import f\ndef make(): return f()",
            "other.py": "def f(): return 1\ndef g(): return 2",
        },
        ("main.py", "import f\n", "import g as f\n"),
    ),
    "which foreign function a name means": (
        {"main.py": "from math import sin as f\ndef make(): return f(1)"},
        ("main.py", "import sin", "import cos"),
    ),
    "an import for its effect": ({"main.py": "def make(): return 1"}, ("main.py", "def", "import antigravity\ndef")),
    "everything of a module": (
        {"main.py": "from {P}.other import *\ndef make(): return f()", "other.py": "def f(): return 1"},
        ("other.py", "1", "2"),
    ),
    "a module handed on as a value": (
        {"main.py": "from {P} import other\ndef make(n): return getattr(other, n)()", "other.py": "def f(): return 1"},
        ("other.py", "1", "2"),
    ),
    "a module named in a string": (
        {
            "main.py": "import importlib\ndef make(): return importlib.import_module('{P}.other').f()",
            "other.py": "def f(): return 1",
        },
        ("other.py", "1", "2"),
    ),
    "a module whose name is put together": (
        {
            "main.py": "import importlib\ndef make(n): return importlib.import_module(f'{P}.{{n}}').f()",
            "other.py": "def f(): return 1",
        },
        ("other.py", "1", "2"),
    ),
    "a class named in a string": (
        {"main.py": "TARGET = '{P}.other.A'\ndef make(): return TARGET", "other.py": "class A:\n    x = 1"},
        ("other.py", "1", "2"),
    ),
    "a name looked up in the module": (
        {"main.py": "def f(): return 1\ndef make(n): return globals()[n]()"},
        ("main.py", "1", "2"),
    ),
    "a base class elsewhere": (
        {
            "main.py": "from {P}.other import A\nclass make(A): pass",
            "other.py": "class A:\n    def step(self): return 1",
        },
        ("other.py", "1", "2"),
    ),
    "a helper of a method of the base class": (
        {
            "main.py": "from {P}.other import A\nclass make(A): pass",
            "other.py": "def f(): return 1\nclass A:\n    def step(self): return f()",
        },
        ("other.py", "1", "2"),
    ),
    "a type that only an annotation names": (
        {
            "main.py": "from {P}.other import A\ndef make(a: A): return a.f()",
            "other.py": "class A:\n    def f(self): return 1",
        },
        ("other.py", "1", "2"),
    ),
    "what a decorator registers": (
        {
            "main.py": "from {P}.other import RULES\nimport {P}.rules\ndef make(): return RULES",
            "other.py": "RULES = []\ndef rule(f):\n    RULES.append(f)\n    return f",
            "rules.py": "from {P}.other import rule\n@rule\ndef f(): return 1",
        },
        ("rules.py", "1", "2"),
    ),
    "what a subclass hook registers": (
        {
            "main.py": "from {P}.other import A\nimport {P}.more\ndef make(): return A.known",
            "other.py": "class A:\n    known = []\n    def __init_subclass__(cls): A.known.append(cls)",
            "more.py": "from {P}.other import A\nclass B(A):\n    x = 1",
        },
        ("more.py", "1", "2"),
    ),
    "a subclass that is found by its parent": (
        {
            "main.py": "from {P}.other import A\nimport {P}.more\ndef make(): return A.__subclasses__()",
            "other.py": "class A: pass",
            "more.py": "from {P}.other import A\nclass B(A):\n    x = 1",
        },
        ("more.py", "1", "2"),
    ),
    "a statement of the module": (
        {"main.py": "TABLE = dict()\nTABLE['a'] = 1\ndef make(): return 0"},
        ("main.py", "1", "2"),
    ),
    "a statement of a module that is imported": (
        {"main.py": "import {P}.other\ndef make(): return 0", "other.py": "import json\njson.x = 1"},
        ("other.py", "1", "2"),
    ),
    "a statement of the package": (
        {"__init__.py": "import json\njson.x = 1", "main.py": "def make(): return 0"},
        ("__init__.py", "1", "2"),
    ),
    "the way around a missing library": (
        {
            "main.py": "try:\n    from no_such import f\nexcept:\n    from {P}.other import f\ndef make(): return f()",
            "other.py": "def f(): return 1",
        },
        ("other.py", "1", "2"),
    ),
    "a file beside the code": (
        {
            "main.py": "from pathlib import Path\nK = Path(__file__).with_name('k.cpp')\ndef make(): return K",
            "k.cpp": "1",
        },
        ("k.cpp", "1", "2"),
    ),
    "a table in a folder beside the code": (
        {
            "main.py": "from pathlib import Path\ndef make(): return Path(__file__).parent / 'tables' / 'a.csv'",
            "tables/a.csv": "1",
        },
        ("tables/a.csv", "1", "2"),
    ),
    "any file of a folder beside the code": (
        {
            "main.py": "from pathlib import Path\ndef make(n): return Path(__file__).parent / 'tables' / n",
            "tables/a.csv": "1",
        },
        ("tables/a.csv", "1", "2"),
    ),
    "a file beside the code whose name is put together": (
        {"main.py": "from pathlib import Path\ndef make(n): return Path(__file__).with_name(n)", "a.npz": "1"},
        ("a.npz", "1", "2"),
    ),
}
STAYS = {
    "a comment": ({"main.py": "def make(): return 1"}, ("main.py", "def", "# why\ndef")),
    "layout": ({"main.py": "def make(): return 1"}, ("main.py", "return 1", "\n\n    return (\n        1\n    )")),
    "a docstring": (
        {"main.py": '"""M."""\nclass make:\n    """C."""\n    def f(self):\n        """F."""\n        return 1'},
        ("main.py", '"""F."""', '"""Of other words."""'),
    ),
    "a docstring where there was none": (
        {"main.py": "def make():\n    return 1"},
        ("main.py", "():\n", '():\n    """New."""\n'),
    ),
    "a helper that nobody uses": ({"main.py": "def make(): return 1"}, ("main.py", "def", "def f(): return 2\ndef")),
    "a constant that nobody uses": ({"main.py": "def make(): return 1"}, ("main.py", "def", "N = 2\ndef")),
    "an import that only an unused helper needs": (
        {"main.py": "def make(): return 1"},
        ("main.py", "def", "import json\ndef f(): return json\ndef"),
    ),
    "another class of a module that is used": (
        {
            "main.py": "from {P}.other import f\ndef make(): return f()",
            "other.py": "def f(): return 1\nclass A:\n    x = 2",
        },
        ("other.py", "2", "3"),
    ),
    "a module that is not imported": ({"main.py": "def make(): return 1", "other.py": "N = 1"}, ("other.py", "1", "2")),
    "the order of definitions": (
        {"main.py": "A = 1\nB = 2\ndef make(): return A + B"},
        ("main.py", "A = 1\nB = 2", "B = 2\nA = 1"),
    ),
    "a file beside code that does not ask for its place": (
        {"main.py": "def make(): return 'notes.txt'", "notes.txt": "1"},
        ("notes.txt", "1", "2"),
    ),
}


def edited(files: dict[str, str], edit: tuple[str, str, str], folder: Path, monkeypatch) -> tuple[str, str]:
    """The hashes before and after."""
    package = f"tried_{next(numbers)}"
    monkeypatch.syspath_prepend(folder)
    for name, text in {"__init__.py": "", **files}.items():
        file = folder / package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("{P}", package).replace("{{", "{").replace("}}", "}"))
    before = code_of(f"{package}.main.make")
    name, old, new = edit
    text = (folder / package / name).read_text()
    assert old in text
    (folder / package / name).write_text(text.replace(old, new, 1))
    look_again()
    return before, code_of(f"{package}.main.make")


@pytest.mark.parametrize(("files", "edit"), COUNTS.values(), ids=COUNTS)
def test_what_can_change_a_number_changes_the_hash(files, edit, tmp_path, monkeypatch):
    before, after = edited(files, edit, tmp_path, monkeypatch)
    assert before != after


@pytest.mark.parametrize(("files", "edit"), STAYS.values(), ids=STAYS)
def test_what_cannot_leaves_it(files, edit, tmp_path, monkeypatch):
    before, after = edited(files, edit, tmp_path, monkeypatch)
    assert before == after


TOOLS = """
from {P}.other import f
class Tools:
    size = 3
    def __init__(self): self.n = f(1)
    def make(self): return self.step()
    def step(self): return 10
    def show(self): return 20
    def all(self): return g(self)
def g(tools): return tools
"""


@pytest.mark.parametrize(
    ("member", "old", "counts"),
    [
        ("make", "10", True),  # it asks itself for `step`
        ("make", "20", False),
        ("make", "3", True),  # attributes and what makes an instance belong to all
        ("make", "f(1)", True),
        ("all", "20", True),  # hands itself on: then anything may be asked of it
    ],
)
def test_of_a_member_counts_what_it_asks_itself_for(member, old, counts, tmp_path, monkeypatch):
    package = f"tried_{next(numbers)}"
    (tmp_path / package).mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / package / "main.py"
    (tmp_path / package / "__init__.py").touch()
    (tmp_path / package / "other.py").write_text("def f(x): return x")
    file.write_text(TOOLS.replace("{P}", package))
    before = code_of(f"{package}.main.Tools.{member}")
    file.write_text(file.read_text().replace(old, "f(2)" if "f" in old else "99"))
    assert (code_of(f"{package}.main.Tools.{member}") != before) == counts


def test_a_class_and_its_name_are_the_same_root():
    from fisherexp.methods.training.erm import ERM
    from fisherexp.methods.unlearning.retrain import Retrain

    assert code_of(ERM) == code_of("fisherexp.methods.training.erm.ERM") != code_of(Retrain)
    assert code_of(ERM, int, "torch.nn.Linear") == code_of(ERM)  # installed distributions have no part


@pytest.mark.parametrize("target", ["no_such_package.x.Y", "fisherexp_but_not_quite.A"])
def test_what_is_not_there_is_an_error(target):
    with pytest.raises(NotFound, match=target):
        code_of(target)


def test_what_a_process_has_imported_does_not_change_with_the_file(tmp_path, monkeypatch):
    """Results of a process are those of the code it runs, whatever is edited meanwhile; a reload is new code."""
    import importlib

    package = f"tried_{next(numbers)}"
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / f"{package}.py"
    file.write_text("def make(): return 1\n")
    before = code_of(f"{package}.make")
    module = importlib.import_module(package)
    assert code_of(f"{package}.make") == before
    file.write_text("def make(): return 1000\n")
    assert module.make() == 1
    assert code_of(f"{package}.make") == before
    importlib.reload(module)
    assert module.make() == 1000
    assert code_of(f"{package}.make") != before

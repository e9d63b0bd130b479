"""Edits in a copy of the package: each file behind a method changes the key, reports and docstrings change none.

Beside it, test_code_traced.py shows that what the closure holds is all that runs.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fisherexp

PACKAGE = Path(fisherexp.__file__).parent

# Runs in a process that imports the copy. Prints the key; with the argument 'edit' also, for each edit, whether the key
# stayed. Further arguments are modules that the closure is to forget; then these alone are edited.
PROGRAM = '''
import ast, json, sys
from pathlib import Path
import fisherexp
from fisherexp.runs import closure, code

ROOTS = [
    "fisherexp.runs.workbench.Workbench.trained",
    "fisherexp.runs.trainer.build_trainer",
    "fisherexp.data.digits.Digits",
    "fisherexp.models.small_cnn.SmallCNN",
    "fisherexp.methods.mixup.mixup.Mixup",
]
forgotten = set(sys.argv[2:])
counts = lambda module: code.counts(module) and module not in forgotten
root = Path(fisherexp.__file__).parent

def key():
    found = closure.closure(ROOTS, counts)
    return code.digest([found.shapes, code._data(found)])

def edited(texts):
    before = {file: file.read_text(encoding="utf-8") for file in texts}
    written(texts)
    try:
        return key()
    finally:
        written(before)

def written(texts):
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")

def in_definition(text, line):
    """The text with one statement more at the end of the definition that ends in a line."""
    lines = text.splitlines()
    last = lines[line - 1]
    return "\\n".join([*lines[:line], " " * (len(last) - len(last.lstrip())) + "len('edited')", *lines[line:]]) + "\\n"

first = key()
if len(sys.argv) == 1:
    print(json.dumps({"key": first}))
    sys.exit()
reached = closure.closure(ROOTS, code.counts)
behind = {}
for name, module in reached.modules.items():
    if forgotten and name not in forgotten:
        continue
    said = set(reached.shapes[name])
    for statement in module.statements:
        (node,) = statement.nodes
        if statement.mentions.shape in said and isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            text = module.file.read_text(encoding="utf-8")
            inner = node.body[-1]
            behind[f"{name}.{node.name}"] = edited({module.file: in_definition(text, inner.end_lineno)}) == first
            break
if forgotten:
    print(json.dumps({"behind": behind}))
    sys.exit()

outside = {}
for file in sorted(root.rglob("*.py")):
    name = ".".join(file.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
    text = file.read_text(encoding="utf-8")
    if not code.counts(name):
        outside[name] = {file: text + "\\nlen('edited')\\n"}
together = edited({file: text for edit in outside.values() for file, text in edit.items()}) == first
# One by one only to name those that change it.
outside = {name: together or edited(edit) == first for name, edit in outside.items()}

words = 0
for file in sorted(root.rglob("*.py")):
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines = text.splitlines()
    found = [n for n in ast.walk(tree) if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(n)]
    for node in found:
        said = node.body[0]
        quoted = lines[said.lineno - 1]
        if quoted.lstrip().startswith(\'"""\'):
            lines[said.lineno - 1] = quoted.replace(\'"""\', \'"""Other words. \', 1)
            words += 1
    file.write_text("# a comment\\n\\n" + "\\n".join(lines) + "\\n\\n\\n# the end\\n", encoding="utf-8")
print(json.dumps({"key": first, "behind": behind, "outside": outside, "words": words, "reworded": key() == first}))
'''


def run_in(copy: Path, *arguments: str) -> dict:
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def copied(folder: Path) -> Path:
    shutil.copytree(PACKAGE, folder / "fisherexp", ignore=shutil.ignore_patterns("__pycache__", "conf"))
    return folder


@pytest.fixture(scope="module")
def edits(tmp_path_factory) -> dict:
    return run_in(copied(tmp_path_factory.mktemp("copy")), "edit")


def test_every_file_behind_a_method_changes_its_key(edits):
    assert len(edits["behind"]) > 20
    assert [name for name, stayed in edits["behind"].items() if stayed] == []


def test_the_function_whose_edit_once_gave_an_old_result_is_among_them(edits):
    assert any(name.startswith("fisherexp.methods.mixup.") for name in edits["behind"])
    assert "fisherexp.models.classifier.Classifier" in edits["behind"]


def test_reports_loggers_and_the_keeping_of_books_change_no_key(edits):
    assert {"fisherexp.reports.table", "fisherexp.runs.loggers", "fisherexp.cli"} <= set(edits["outside"])
    assert [name for name, stayed in edits["outside"].items() if not stayed] == []


def test_docstrings_comments_and_layout_change_no_key(edits):
    assert edits["words"] > 500
    assert edits["reworded"]


def test_the_key_is_the_same_wherever_the_checkout_lies(edits, tmp_path):
    elsewhere = copied(tmp_path / "a" / "deeper" / "place")
    assert run_in(elsewhere)["key"] == edits["key"]


def test_a_closure_that_forgets_a_file_fails_the_same_check(tmp_path):
    """The control."""
    forgetful = run_in(copied(tmp_path), "edit", "fisherexp.models.classifier")
    assert "fisherexp.models.classifier.Classifier" in {name for name, stayed in forgetful["behind"].items() if stayed}

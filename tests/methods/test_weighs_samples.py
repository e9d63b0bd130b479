"""Weights of samples count or are refused: a method with a loss of its own says which, and the runner sees to it."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fisherexp
from fisherexp.config.explain import composed
from fisherexp.runs.workbench import Workbench

PACKAGE = Path(fisherexp.__file__).parent
SMALL = ["scenario=none", "model.width=4", "training.epochs=0", "progress=off"]


def classes() -> dict[str, ast.ClassDef]:
    files = (*PACKAGE.glob("methods/**/*.py"), *PACKAGE.glob("audits/*.py"))
    nodes = (node for file in files for node in ast.parse(file.read_text(encoding="utf-8")).body)
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


def silent(known: dict[str, ast.ClassDef]) -> list[str]:
    """Those that train by another loss than they inherit from ERM, and do not say whether it weights samples."""

    def trains(name: str) -> bool:
        bases = [ast.unparse(base) for base in known[name].bases] if name in known else []
        return name == "ERM" or any(map(trains, bases))

    def own(node: ast.ClassDef) -> set[str]:
        assigned = (t.id for item in node.body if isinstance(item, ast.Assign) for t in item.targets)
        return {item.name for item in node.body if isinstance(item, ast.FunctionDef)} | set(assigned)

    found = {name: own(node) for name, node in known.items() if trains(name)}
    return [name for name, has in found.items() if has & {"loss", "training_step"} and "weighs_samples" not in has]


def test_whoever_has_a_loss_of_its_own_says_whether_it_weights():
    known = classes()
    assert len(known) > 100
    assert silent(known) == []
    known |= {"Quiet": ast.parse("class Quiet(Finetune):\n    def loss(self, batch): ...").body[0]}  # control
    assert silent(known) == ["Quiet"]


@pytest.mark.parametrize(("method", "taken"), [("erm", True), ("label_smoothing", False)])
def test_the_runner_refuses_weights_that_would_be_ignored(method, taken, tmp_path):
    bench = Workbench(composed([f"method={method}", *SMALL, f"output_dir={tmp_path}"]))
    train = bench.setting.parts["train"]
    bench.setting.parts["train"] = replace(train, weights=torch.ones(len(train)))
    if taken:
        bench.fit(bench.method("method"), tmp_path, "fit")
        return
    with pytest.raises(ValueError, match="'train' have weights, and LabelSmoothing would count all alike"):
        bench.fit(bench.method("method"), tmp_path, "fit")

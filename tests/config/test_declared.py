"""What is read from source equals what importing the class would say."""

import importlib
import inspect

import pytest

from fisherexp.config.declared import TargetNotFound, declared
from fisherexp.config.locations import conf_dir
from fisherexp.config.yaml_files import read_yaml

TARGETS = sorted(
    {
        node["_target_"]
        for file in conf_dir().rglob("*.yaml")
        if isinstance(node := read_yaml(file), dict) and node.get("_target_")
    }
)


@pytest.mark.parametrize("target", TARGETS)
def test_parameters_are_those_of_the_signature(target):
    module, _, name = target.rpartition(".")
    parameters = signature(getattr(importlib.import_module(module), name))
    face = declared(target)
    assert set(face.parameters) == set(parameters)
    assert face.required == {n for n, p in parameters.items() if p.default is inspect.Parameter.empty}


def signature(item) -> dict[str, inspect.Parameter]:
    """Parameters by name; a **kwargs is what the parent class takes."""
    found = dict(inspect.signature(item).parameters)
    if any(p.kind is p.VAR_KEYWORD for p in found.values()):
        own = {n: p for n, p in found.items() if p.kind is not p.VAR_KEYWORD}
        found = signature(item.__mro__[1]) | own
    return found


@pytest.mark.parametrize("target", [t for t in TARGETS if ".methods." in t or ".scenarios." in t])
def test_attributes_are_those_of_the_class(target):
    module, _, name = target.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    for attribute in ("paper", "scenarios", "start", "fits_on", "needs", "kind", "references"):
        if hasattr(cls, attribute):
            told = declared(target).attributes
            # Needs are objects; where there are any, nothing is told of them.
            assert attribute in told or (attribute == "needs" and cls.needs)
            assert told.get(attribute, getattr(cls, attribute)) == getattr(cls, attribute)


@pytest.mark.parametrize(
    "target", ["fisherexp.nowhere.Nothing", "fisherexp.seeds.Nothing", "nowhere.Nothing", "Nothing"]
)
def test_missing_targets_are_named(target):
    with pytest.raises(TargetNotFound, match="Nothing"):
        declared(target)

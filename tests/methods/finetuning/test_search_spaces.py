"""Every fine-tuning method declares what a search over it varies, with valid values and its own default within."""

import pytest
from omegaconf import OmegaConf

from fisherexp.catalogue import entries, wing
from fisherexp.config.fit import NOT_INSTALLED
from fisherexp.config.validate import validate
from fisherexp.sweeps.space import declared_dimensions

METHODS = [entry.name for entry in entries("method", []) if wing(entry.file) == "finetuning"]


def faults(config):
    return [problem for problem in validate(config) if not problem.reason.startswith(NOT_INSTALLED)]


@pytest.mark.parametrize("method", METHODS)
def test_every_value_of_a_methods_space_composes(method, compose_quickly):
    config = compose_quickly([f"method={method}"])
    found = declared_dimensions(config, fixed=set())
    assert {"method.finetune.lr", "method.training.lr"} & {dimension.option for dimension in found}
    for dimension in found:
        default = OmegaConf.select(config, dimension.option)
        ends = dimension.values or (dimension.low, dimension.high)
        assert default in ends if dimension.values else dimension.low < default < dimension.high
        for value in ends:
            OmegaConf.update(config, dimension.option, value)
            assert faults(config) == []
        OmegaConf.update(config, dimension.option, default)


def test_a_value_outside_is_a_fault(compose_quickly):
    """The control: the checks of above see what is no rate."""
    config = compose_quickly(["method=lora"])
    OmegaConf.update(config, "method.finetune.lr", -1.0)
    assert "method.finetune.lr" in str(faults(config))

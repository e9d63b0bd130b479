"""Every fine-tuning method declares what a search over it varies, with valid values and its own default within."""

import json

import forked
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


OWN = {
    "sorsa": {"penalty"},
    "sara": {"threshold"},
    "lost": {"gamma"},
    "svfit": {"energy"},
    "ba_lora": {"consistency", "diversity", "spectrum"},
    "maestro": {"penalty"},
    "lora": set(),
}


@pytest.mark.parametrize("method", OWN)
def test_what_is_a_methods_own_is_searched_beside_its_rate(method, compose_quickly):
    found = {d.option for d in declared_dimensions(compose_quickly([f"method={method}"]), fixed=set())}
    beside = {option.removeprefix("method.") for option in found if not option.endswith(".lr")}
    assert beside == OWN[method]


@pytest.mark.end_to_end
def test_a_search_varies_both_and_keeps_the_better_trial(tmp_path):
    line = ["-m", "hydra/sweeper=optuna", "method=sara", "model.hidden=[32,16]"]
    line += ["training.epochs=1", "method.finetune.epochs=1", "data.validation=0.2", "progress=off", "threads=1"]
    done = forked.run("run.py", *line, "hydra.sweeper.n_trials=2", f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    records = [json.loads(file.read_text()) for file in tmp_path.glob("sara/*/*/run.json")]
    trials = [record for record in records if record["trial"]]
    tried = [(r["config"]["method"]["finetune"]["lr"], r["config"]["method"]["threshold"]) for r in trials]
    assert len({lr for lr, _ in tried}) == len({threshold for _, threshold in tried}) == 2
    assert all(3e-3 <= lr <= 3e-1 and 5e-4 <= threshold <= 5e-2 for lr, threshold in tried)
    assert all(record["config"]["evaluate_on"] == "validation" for record in trials)
    (chosen,) = [record for record in records if not record["trial"]]
    assert chosen["search"]["value"] == max(record["metrics"]["after"]["test_accuracy"] for record in trials)


def test_a_value_outside_is_a_fault(compose_quickly):
    """The control: the checks of above see what is no rate."""
    config = compose_quickly(["method=lora"])
    OmegaConf.update(config, "method.finetune.lr", -1.0)
    assert "method.finetune.lr" in str(faults(config))

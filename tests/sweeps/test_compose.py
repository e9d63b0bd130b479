"""Composing a sweep's runs quickly gives what Hydra gives."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode

from fisherexp.config.explain import CONFIG_NAME, composed
from fisherexp.config.locations import conf_dir
from fisherexp.sweeps.compose import composer

JOBS = [
    ["method=ssd", "seed=3", "scenario.classes=[1,2]", "+callbacks=[]"],
    ["method=eata", "scenario=continual", "seed=4", "method.update.lr=1e-5"],
    ["experiment=domainbed_pacs", "draw=2", "logger=[csv,wandb]", "seed=5"],
    ["method@source=label_smoothing", "~audit", "data=colored_digits", "model.width=7"],
    ["method=ssd", "seed=6", "output_dir=elsewhere"],
]


@pytest.fixture(scope="module")
def compose():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        config = hydra.compose_config(CONFIG_NAME, [], run_mode=RunMode.MULTIRUN, from_shell=False)
        yield composer(HydraContext(config_loader=hydra.config_loader, callbacks=None), config)


def test_runs_are_composed_as_hydra_does(compose):
    quickly = [compose(job) for job in JOBS]
    assert quickly == [composed(job) for job in JOBS]


def test_a_value_does_not_leak_into_the_next_run(compose):
    assert compose(["seed=9"]).seed == 9
    assert compose([]).seed == 0

"""Composing a sweep's runs quickly gives what Hydra gives."""

from fisherexp.config.explain import by_hydra

JOBS = [
    ["method=ssd", "seed=3", "scenario.classes=[1,2]", "+callbacks=[]"],
    ["method=eata", "scenario=continual", "seed=4", "method.update.lr=1e-5"],
    ["experiment=domainbed_pacs", "draw=2", "logger=[csv,wandb]", "seed=5"],
    ["method@source.method=label_smoothing", "~audit", "data=colored_digits", "model.width=7"],
    ["method=ssd", "seed=6", "output_dir=elsewhere"],
]


def test_runs_are_composed_as_hydra_does(compose_quickly):
    quickly = [compose_quickly(job) for job in JOBS]
    assert quickly == [by_hydra(job) for job in JOBS]


def test_a_value_does_not_leak_into_the_next_run(compose_quickly):
    assert compose_quickly(["seed=9"]).seed == 9
    assert compose_quickly([]).seed == 0

"""Three small tasks of digits for methods that learn them in turn."""

from collections.abc import Callable

import pytest
import torch

from fisherexp.catalogue import entries
from fisherexp.config.explain import composed
from fisherexp.config.yaml_files import read_yaml
from fisherexp.runs.workbench import Workbench


def _in_turn(entry) -> bool:
    return entry.attributes.get("scenarios") == ("task_sequence",) and bool(entry.attributes.get("looks_at"))


def pytest_generate_tests(metafunc):
    """`task_method` is each method that learns tasks in turn, `anchored_method` each of them with a quadratic penalty.
    New ones are found by themselves."""
    if {"task_method", "anchored_method"} & set(metafunc.fixturenames):
        in_turn = [entry for entry in entries("method", []) if _in_turn(entry)]
        anchored = [entry for entry in in_turn if "schedule" in read_yaml(entry.file)]
        for fixture, found in {"task_method": in_turn, "anchored_method": anchored}.items():
            if fixture in metafunc.fixturenames:
                metafunc.parametrize(fixture, [entry.name for entry in found])


SMALL = [
    "data=digits",
    "data.train_size=320",
    "model=mlp",
    "model.hidden=[16]",
    "scenario=task_sequence",
    "scenario.tasks=[plain,permuted_1,inverted]",
    "training=small",
    "training.epochs=2",
    "training.optimizer=adam",
    "training.lr=1e-3",
    "progress=off",
    "checkpoint_every=0",
    "threads=1",
]


@pytest.fixture
def small() -> list[str]:
    """Three tasks of 4 batches an epoch, 2 epochs each."""
    return SMALL


@pytest.fixture
def make_bench(tmp_path, small) -> Callable[..., Workbench]:
    """A workbench for a method on the small setting; callbacks join its own fit."""

    def make(method: str, *options: str, callbacks=None) -> Workbench:
        config = composed([f"method={method}", *small, f"output_dir={tmp_path / method}", *options])
        return Workbench(config, callbacks=callbacks)

    return make


@pytest.fixture
def same_as_sequential_lora(make_bench, tmp_path) -> Callable[..., bool]:
    """Does a method with these options end, bit for bit, where sequential LoRA does from the same weights?"""

    def run(folder: str, method: str, *options: str) -> dict[str, torch.Tensor]:
        bench = make_bench(method, *options)
        made = bench.method("method")
        made.model.load_state_dict(make_bench("sequential_lora").method("method").model.state_dict())
        begin = made.begin_task

        def begin_seeded():  # a fit seeds its stream by the method's name, and adapters are drawn from it
            torch.manual_seed(7)
            begin()

        made.begin_task = begin_seeded
        bench.fit(made, tmp_path / folder, "fit")
        return made.model.state_dict()

    def same(method: str, *options: str) -> bool:
        plain, other = run("plain", "sequential_lora"), run("other", method, *options)
        return all(torch.equal(other[name], tensor) for name, tensor in plain.items())

    return same

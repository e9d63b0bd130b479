"""Learning rates over time, against the formulas."""

import math

import pytest
import torch

from fisherexp.config.explain import composed
from fisherexp.methods.recipe import Recipe
from fisherexp.runs.workbench import Workbench

STEPS = 7


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(epochs=4, schedule="constant"), lambda step: 1.0),
        (Recipe(epochs=4, schedule="cosine"), lambda step: 0.5 * (1 + math.cos(math.pi * step / 28))),
        (
            Recipe(epochs=4, schedule="multistep", milestones=[1, 3], gamma=0.1),
            lambda step: 0.1 ** ((step >= 7) + (step >= 21)),
        ),
        (
            Recipe(epochs=4, schedule="cosine", warmup_epochs=1),
            lambda step: (step + 1) / 7 if step < 7 else 0.5 * (1 + math.cos(math.pi * (step - 7) / 21)),
        ),
    ],
)
def test_schedule(recipe, expected):
    model = torch.nn.Linear(2, 2)
    configured = recipe.configure(model, STEPS)
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    for step in range(recipe.epochs * STEPS):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(recipe.lr * expected(step))
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_optimizers_leave_frozen_parameters_alone(name, kind):
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = Recipe(optimizer=name).configure(model, 1)["optimizer"]
    assert type(optimizer) is kind
    assert [p.shape for p in optimizer.param_groups[0]["params"]] == [model.weight.shape]


def test_no_epochs_leave_the_weights_as_they_came(tmp_path):
    cfg = composed(["method=erm", "scenario=none", "training.epochs=0", "progress=off", f"output_dir={tmp_path}"])
    bench = Workbench(cfg)
    came = bench.method("method").model.state_dict()
    assert all(torch.equal(tensor, came[name]) for name, tensor in bench.trained("method").tensors.items())

"""Learning rates by layer: which parameters are in a group, and that a step is as large as its rate says."""

import copy

import pytest
import torch
from torch import nn

from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.layer_rates import layer_groups, set_rates, weights
from fisherexp.methods.training.temp_balance import TempBalance

OPTIONS = {"spectra": "farms", "low": 0.5, "high": 1.5, "window": None, "positions": 3, "fewest": 4, "fit": "hill"}


def network() -> nn.Module:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 12, 3)]
    return nn.Sequential(nn.BatchNorm2d(1), *convolutions, nn.Flatten(), nn.Linear(12 * 4, 3))


def test_every_parameter_is_in_the_group_of_its_layer_or_of_the_one_before():
    model = network()
    model[5].frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
    groups = layer_groups(model, 0.1)
    assert [group["name"] for group in groups] == ["", "1", "3", "4", "6"]
    assert [len(group["params"]) for group in groups] == [2, 4, 2, 2, 2]
    assert weights(model, groups)["3"] is model[3].weight
    assert {group["lr"] for group in groups} == {0.1}


def test_a_shared_weight_is_in_one_group():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert [len(group["params"]) for group in layer_groups(model, 0.1)] == [2, 1]


class Conv1D(nn.Module):
    """As transformers has it for GPT-2."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(m, n)), nn.Parameter(torch.zeros(n))


def test_layers_of_gpt_2_have_rates_of_their_own():
    model = nn.ModuleDict({"c_attn": Conv1D(6, 4), "norm": nn.LayerNorm(6), "head": nn.Linear(6, 3)})
    groups = layer_groups(model, 0.1)
    assert [(group["name"], len(group["params"])) for group in groups] == [("c_attn", 4), ("head", 2)]


def test_the_schedule_multiplies_the_new_rates():
    model = network()
    made = Recipe(epochs=2, lr=0.1, schedule="cosine").configure_groups(layer_groups(model, 0.1), 4)
    scheduler = made["lr_scheduler"]["scheduler"]
    made["optimizer"].step()
    scheduler.step()
    rates = [0.1, 0.2, 0.3, 0.4, 0.5]
    set_rates(scheduler, rates)
    for step in (1, 2):
        factor = Recipe(epochs=2, schedule="cosine").factor(step, 4)
        assert [g["lr"] for g in made["optimizer"].param_groups] == pytest.approx([factor * rate for rate in rates])
        scheduler.step()


def test_rates_follow_alpha_and_first_and_last_keep_theirs(monkeypatch):
    model = network()
    with torch.no_grad():  # of low rank: a heavy tail, learnt; the other is noise
        model[3].weight += 3 * torch.einsum("ihw,o->oihw", torch.randn(8, 3, 3), torch.randn(8))
    method = TempBalance(model, Recipe(epochs=1, lr=0.1, schedule="constant"), **OPTIONS)
    made = method.configure_optimizers()
    monkeypatch.setattr(method, "optimizers", lambda **_: made["optimizer"])
    monkeypatch.setattr(method, "lr_schedulers", lambda: made["lr_scheduler"]["scheduler"])
    monkeypatch.setattr(TempBalance, "current_epoch", 0)
    method.on_train_epoch_start()
    (alphas,), (factors,) = method.outcome["alpha"], method.outcome["factor"]
    assert alphas["3"] < alphas["4"]
    assert factors == {"3": 0.5, "4": 1.5}
    rates = {group["name"]: group["lr"] for group in made["optimizer"].param_groups}
    assert rates == pytest.approx({"": 0.1, "1": 0.1, "3": 0.05, "4": 0.15, "6": 0.1})
    kept = copy.deepcopy(method.outcome)
    method.on_train_epoch_start()  # as after a saved state: the epoch's rates are set
    assert method.outcome == kept


def test_a_model_without_layers_between_is_refused():
    with pytest.raises(ValueError, match="no layer between its first and last"):
        TempBalance(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)), Recipe(), **OPTIONS)

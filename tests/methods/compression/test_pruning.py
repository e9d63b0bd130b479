"""Pruning on digits: what is dropped, that it stays dropped, and how many weights each sub-step leaves."""

import pytest
import torch
from torch import nn

from fisherexp.config.explain import composed
from fisherexp.curvature.vectors import ravel
from fisherexp.methods.compression.gg_init import gg_init_
from fisherexp.methods.compression.pruning import prunable
from fisherexp.runs.workbench import Workbench

ONE_SHOT = ["method.sparsities=[0.8]", "method.finetune.epochs=0"]
METHODS = ["magnitude_pruning", "diagonal_fisher_pruning", "m_fac_pruning", "wood_fisher"]


@pytest.mark.parametrize("method", METHODS)
def test_dropped_weights_are_zero_through_finetuning_with_momentum_and_decay(pruned, method):
    tuned = ["method.sparsities=[0.5,0.8]", "method.finetune.epochs=1", "method.finetune.weight_decay=0.01"]
    fit, before, _ = pruned(method, *tuned)
    after = ravel(fit.weights)
    assert (after[~fit.kept] == 0).all()
    assert (after[fit.kept] != before[fit.kept]).all()
    assert fit.outcome["weights"] == len(before) == 64 * 16 + 16 * 16 + 16 * 10
    assert fit.outcome["kept"] == fit.kept.sum() == round(0.2 * len(before))
    assert fit.outcome["sparsity"] == pytest.approx(0.8, abs=1e-3)
    assert sum(fit.outcome["kept_by_layer"].values()) == fit.outcome["kept"]


def test_magnitude_drops_the_smallest_of_all_layers_and_leaves_the_rest(pruned):
    fit, before, _ = pruned("magnitude_pruning", *ONE_SHOT)
    threshold = before.abs().sort().values[-fit.outcome["kept"]]
    expected = torch.where(before.abs() >= threshold, before, 0)
    assert torch.equal(ravel(fit.weights), expected)


def test_recomputations_keep_a_geometric_series(pruned):
    fit, _, _ = pruned(
        "m_fac_pruning", "method.sparsities=[0.5,0.9]", "method.recomputations=4", "method.finetune.epochs=0"
    )
    kept = [fit.target(step, sub) / len(fit.kept) for step in (0, 1) for sub in (1, 2, 3, 4)]
    ratios = torch.tensor(kept[1:]) / torch.tensor(kept[:-1])
    assert kept[3] == pytest.approx(0.5, abs=1e-3)
    assert kept[7] == pytest.approx(0.1, abs=1e-3)
    torch.testing.assert_close(ratios[:3], torch.full((3,), 0.5**0.25), atol=3e-3, rtol=0)
    torch.testing.assert_close(ratios[3:], torch.full((4,), 0.2**0.25), atol=3e-3, rtol=0)
    assert fit.outcome["kept"] == fit.target(1, 4)


@pytest.mark.parametrize("shares", ["[]", "[0.5,0.5]", "[0.8,0.2]", "[0.0,0.5]"])
def test_sparsities_must_rise(shares):
    bench = Workbench(composed(["method=magnitude_pruning", "scenario=none", f"method.sparsities={shares}"]))
    with pytest.raises(ValueError, match=r"method\.sparsities must rise"):
        bench.method("method")


def test_a_weight_that_layers_share_is_pruned_once():
    """Counted twice it would be given two masks, of which the first is lost."""
    model = nn.ModuleDict({"a": nn.Linear(5, 5), "b": nn.Linear(5, 5), "c": nn.Linear(5, 5)})
    model["b"].weight = model["a"].weight
    assert list(prunable(model)) == ["a.weight", "c.weight"]


class Conv1D(nn.Module):
    """As transformers has it for GPT-2."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(m, n)), nn.Parameter(torch.zeros(n))


def test_layers_of_gpt_2_are_pruned_as_linear_ones_are():
    model = nn.ModuleDict({"c_attn": Conv1D(6, 4), "norm": nn.LayerNorm(6), "head": nn.Linear(6, 3)})
    assert list(prunable(model)) == ["c_attn.weight", "head.weight"]
    assert prunable(model)["c_attn.weight"] is model["c_attn"].weight


@pytest.mark.parametrize(("fan", "inputs"), [("in", 40), ("out", 2000)])
def test_layers_of_gpt_2_begin_as_linear_ones_do(fan, inputs):
    model = nn.ModuleDict({"c_attn": Conv1D(2000, 40), "head": nn.Linear(40, 2000)})
    assert gg_init_(model, 2.0, 2.0, fan) == ["c_attn", "head"]
    for layer in model.values():
        assert layer.weight.square().mean().item() == pytest.approx(2 / inputs, rel=0.05)

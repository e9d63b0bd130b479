"""Weights by losses: closed form, limits, the gradient, and the published ordering on easy and hard data."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.data.batch import Batch
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.loss_reweighting import LossReweighting
from fisherexp.methods.training.loss_weights import STRATEGIES, loss_weights
from fisherexp.objectives.token_prediction import IGNORED, TokenPrediction

LOSSES = torch.tensor([0.5, 3.5, 2.0, 1.25, 2.75], dtype=torch.float64)  # h = -1, 1, 0, -½, ½


@pytest.mark.parametrize(
    ("strategy", "preferred"),
    [
        ("linupper", [0.0, 1.0, 1.0, 0.5, 1.0]),
        ("quadratic", [0.0, 0.0, 1.0, 0.75, 0.75]),
        ("extremes", [1.0, 1.0, 0.0, 0.5, 0.5]),
        ("upper", [0.0, 1.0, 0.5, 0.25, 0.75]),
        ("uniform", [0.0] * 5),
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_weights_are_the_softmax_of_what_is_preferred(strategy, preferred, temperature):
    found = loss_weights(LOSSES, strategy, temperature)
    expected = torch.tensor(preferred, dtype=torch.float64).div(temperature).exp()
    torch.testing.assert_close(found, expected / expected.sum())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equal_losses_or_a_large_temperature_make_equal_weights(strategy):
    equal = torch.full((5,), 0.2)
    torch.testing.assert_close(loss_weights(torch.full((5,), 2.0), strategy, 0.1), equal)
    torch.testing.assert_close(loss_weights(LOSSES.float(), strategy, 1e6), equal, rtol=1e-5, atol=0)
    assert strategy == "uniform" or not torch.allclose(loss_weights(LOSSES.float(), strategy, 1.0), equal)


def test_linupper_rises_with_the_loss_and_then_is_flat():
    weights = loss_weights(torch.linspace(0, 1, 11), "linupper", 0.5)
    assert (weights[:5].diff() > 0).all()
    torch.testing.assert_close(weights[5:], weights[5].expand(6))


def method(model: nn.Module, step: int = 100, **options) -> LossReweighting:
    found = LossReweighting(model, Recipe(epochs=10), **options)
    found.steps_per_epoch = 10
    found._trainer = SimpleNamespace(global_step=step)  # of which Lightning's property reads it
    found.objective = TokenPrediction()
    return found


def rows(lengths: list[int]) -> tuple[nn.Module, Batch]:
    """A model of next tokens and a batch of rows of these lengths."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 7)).double()
    tokens, following = torch.randint(7, (2, len(lengths), max(lengths)))
    for row, length in zip(following, lengths, strict=True):
        row[length:] = IGNORED
    return model, Batch(tokens, following)


@pytest.mark.parametrize(("token_share", "lengths"), [(False, [5, 2, 4]), (True, [5, 2, 4]), (True, [4, 4, 4])])
def test_the_gradient_is_that_of_a_sum_with_constant_weights(token_share, lengths):
    model, batch = rows(lengths)
    reweighting = method(model, strategy="linupper", temperature=0.4, token_share=token_share)
    (found,) = torch.autograd.grad(reweighting.loss(batch), [model[1].weight])
    losses = [
        F.cross_entropy(model(x[None])[0], y, ignore_index=IGNORED)
        for x, y in zip(batch.inputs, batch.targets, strict=True)
    ]
    weights = loss_weights(torch.stack(losses), "linupper", 0.4)
    share = torch.tensor(lengths) / (sum(lengths) / len(lengths)) if token_share else torch.ones(3)
    gradients = [torch.autograd.grad(loss, model[1].weight)[0] for loss in losses]
    expected = sum(w * s * g for w, s, g in zip(weights, share, gradients, strict=True))
    torch.testing.assert_close(found, expected)


def test_warming_up_all_count_alike():
    model, batch = rows([4, 4, 4])
    found = [method(model, step, warmup=0.5).loss(batch).item() for step in (0, 49, 50)]
    mean = TokenPrediction().loss(model(batch.inputs), batch.targets).item()
    assert found[:2] == pytest.approx([mean, mean])
    assert found[2] > 1.01 * mean


@pytest.mark.parametrize("seed", range(3))
def test_on_easy_and_hard_samples_linupper_is_fastest_and_extremes_slowest(seed):
    """The paper's linear regression: four in five samples vary in ten of forty directions only."""

    def error(strategy: str) -> float:
        torch.manual_seed(seed)
        truth, weights = torch.randn(40), torch.zeros(40, requires_grad=True)
        easy = torch.cat([torch.ones(10), 0.1 * torch.ones(30)])
        for _ in range(200):
            scale = torch.where(torch.rand(64, 1) < 0.8, easy, torch.ones(40))
            x = scale * torch.randn(64, 40)
            losses = (x @ (weights - truth)).square()
            (gradient,) = torch.autograd.grad((loss_weights(losses, strategy, 1.0) * losses).sum(), weights)
            weights = (weights - 0.02 * gradient).detach().requires_grad_()
        return (weights - truth).square().mean().item()

    found = {strategy: error(strategy) for strategy in ("linupper", "quadratic", "uniform", "extremes")}
    assert 3 * found["linupper"] < found["uniform"] < found["extremes"], found
    assert found["linupper"] < found["quadratic"] < found["uniform"], found

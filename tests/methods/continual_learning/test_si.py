"""Synaptic intelligence: the path integral adds up to the fall of the loss and finds the curvature of a quadratic."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fisherexp.methods.continual_learning.si import SI, importance
from fisherexp.methods.recipe import Recipe

CURVATURE = torch.tensor([[4.0, 2.0, 1.0]]).double()


class Quadratic(nn.Module):
    """½ Σ h_j θ_j² as a loss of no data."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.ones(1, 3).double())

    def value(self):
        return (CURVATURE * self.theta.square()).sum() / 2


def descend(si: SI, steps: int, lr: float) -> None:
    """Gradient descent on loss and penalty through the hook that sums the path."""
    optimizer = torch.optim.SGD(si.model.parameters(), lr=lr)
    for _ in range(steps):

        def closure():
            optimizer.zero_grad()
            loss = si.model.value()
            if si.memory["anchors"]:
                loss = loss + si.stiffness * si.penalty()
            loss.backward()
            return loss

        si.optimizer_step(0, 0, SimpleNamespace(step=lambda closure: optimizer.step(closure)), closure)


@pytest.fixture
def made(monkeypatch):
    def make(gradient: str = "task", lambda_: float = 0.0, xi: float = 1e-9) -> SI:
        # The strategy's part of Lightning's optimizer_step, which is to step.
        monkeypatch.setattr("pytorch_lightning.LightningModule.optimizer_step", lambda s, e, b, o, c: o.step(closure=c))
        monkeypatch.setattr(SI, "current_epoch", 0)
        si = SI(Quadratic(), Recipe(epochs=1), lambda_, xi, gradient)
        si.begin_task()
        return si

    return make


def test_path_integral_is_the_fall_of_the_loss(made):
    si = made()
    before = si.model.value().item()
    descend(si, steps=2000, lr=1e-3)
    fall = before - si.model.value().item()
    assert si.memory["path"]["theta"].sum().item() == pytest.approx(fall, rel=3e-3)


def test_importance_of_a_quadratic_at_its_minimum_is_half_its_curvature(made):
    si = made()
    descend(si, steps=8000, lr=1e-3)
    si.finish_task(None)
    torch.testing.assert_close(si.memory["anchors"][0]["omega"]["theta"], CURVATURE / 2, rtol=3e-3, atol=0)


def test_the_task_gradient_leaves_the_penalty_out(made):
    """With a penalty at work the path of 'task' still adds up to the fall of the task's loss, that of 'total' to the
    fall of both."""
    for gradient in ("task", "total"):
        si = made(gradient, lambda_=1.0)
        si.memory["anchors"] = [{"omega": {"theta": torch.full((1, 3), 2.0).double()}, "anchor": {"theta": -CURVATURE}}]

        def value(si=si, penalized=gradient == "total"):
            return (si.model.value() + (si.stiffness * si.penalty() if penalized else 0)).item()

        before = value()
        descend(si, steps=2000, lr=2.5e-4)
        assert si.memory["path"]["theta"].sum().item() == pytest.approx(before - value(), rel=5e-3)


def test_importance_is_bounded_and_never_negative():
    path, moved = torch.tensor([-1.0, 0.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 2.0])
    torch.testing.assert_close(importance(path, moved, 0.1), torch.tensor([0.0, 0.0, 10.0, 1 / 4.1]))

"""A network that predicts the value of a design, and the search for designs that it calls good."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.3  # of LeakyReLU below zero, as in design-baselines


class Scaled(NamedTuple):
    """Columns of mean zero and deviation one, and how they came there."""

    values: Tensor
    mean: Tensor
    std: Tensor


def scaled(columns: Tensor) -> Scaled:
    """Standardize columns (n, d); one that is constant is only moved."""
    mean, std = columns.mean(0), columns.std(0, correction=0)
    std = torch.where(std > 1e-6, std, 1.0)
    return Scaled((columns - mean) / std, mean, std)


class Surrogate(nn.Module):
    """LeakyReLU network from standardized designs (n, d) to the mean (n, 1) and the log-deviation (n, 1) of a value.

    hidden: widths. Two softplus keep the deviation between `low` and `low + high`, which are trained and begin at 0.1
    and 0.2, as in design-baselines.
    """

    def __init__(self, size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise([size, *hidden]):
            layers += [nn.Linear(before, after), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Linear([size, *hidden][-1], 2))
        self.low, self.high = (nn.Parameter(torch.tensor(bound).log()) for bound in (0.1, 0.2))

    def forward(self, designs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.layers(designs).split(1, dim=1)
        log_std = self.high - F.softplus(self.high - log_std)
        return mean, self.low + F.softplus(log_std - self.low)

    def mean(self, designs: Tensor) -> Tensor:
        return self(designs)[0]


def surrogate_loss(model: Surrogate, designs: Tensor, values: Tensor, kind: Literal["gaussian", "squared"]) -> Tensor:
    """Mean over designs (n, d) of -log N(value; mean, deviation²) up to a constant, or of the squared error."""
    mean, log_std = model(designs)
    if kind == "squared":
        return F.mse_loss(mean, values)
    return (log_std + ((values - mean) * (-log_std).exp()).square() / 2).mean()


def ascend(model: Surrogate, designs: Tensor, steps: int, rate: float) -> Tensor:
    """Designs (n, d) after `steps` of gradient ascent on the predicted mean, each design by itself: x ← x + rate ∇h(x).

    The weights get no gradient.
    """
    for _ in range(steps):
        designs = designs.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model.mean(designs).sum(), designs)
        designs = designs + rate * gradient
    return designs.detach()

"""Symmetries of the square on the layers of a network: representations, and projection onto the equivariant weights.

    P_G W = 1/|G| Σ_g ρ_out(g) W ρ_in(g)⁻¹,   P_G b = 1/|G| Σ_g ρ_out(g) b        (the Reynolds operator)

Inputs and outputs are vectors of the plane, hidden layers copies of the regular representation, which permutes eight
numbers: ReLU commutes with it. All representations are orthogonal, so P_G is the orthogonal projection.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from fisherexp.problems.mixed_symmetry import MIRROR, TURN

Group = Literal["turns", "mirror", "square"]
ORDER = 8  # of the symmetry group of the square


def square() -> list[Tensor]:
    """The eight symmetries of the square as matrices (2, 2): turns by 0, 90, 180, 270 degrees, then each mirrored."""
    turns = [torch.linalg.matrix_power(TURN, number) for number in range(4)]
    return [*turns, *(turn @ MIRROR for turn in turns)]


def regular(matrices: list[Tensor]) -> list[Tensor]:
    """The regular representation (8, 8) of each: g permutes the elements by multiplication from the left."""
    stacked = torch.stack(matrices)

    def column(product: Tensor) -> Tensor:
        return ((stacked - product).abs().sum((1, 2)) < 1e-4).float()

    return [torch.stack([column(g @ h) for h in matrices], dim=1) for g in matrices]


MEMBERS: dict[str, list[int]] = {"turns": [0, 1, 2, 3], "mirror": [0, 4], "square": list(range(ORDER))}


class Action(NamedTuple):
    """Representations (|G|, d, d) of a group on the inputs and outputs of a layer."""

    inputs: Tensor
    outputs: Tensor

    def project(self, weight: Tensor) -> Tensor:
        """P_G of a weight (m, n)."""
        return (self.outputs @ weight @ self.inputs.mT).mean(0)

    def project_bias(self, bias: Tensor) -> Tensor:
        """P_G of a bias (m,)."""
        return (self.outputs @ bias).mean(0)


def actions(group: Group, points: int, copies: Sequence[int]) -> list[Action]:
    """Of a group on each layer of a network from `points` vectors over hidden layers of so many copies to one."""
    matrices = square()
    permutations = regular(matrices)

    def on(representation: list[Tensor], number: int) -> Tensor:
        return torch.stack([torch.kron(torch.eye(number), representation[g]) for g in MEMBERS[group]])

    spaces = [on(matrices, points), *(on(permutations, number) for number in copies), on(matrices, 1)]
    return [Action(*pair) for pair in pairwise(spaces)]


def residual(layers: Sequence[nn.Linear], group: Sequence[Action]) -> Tensor:
    """R_G = Σ_layers ½‖W - P_G W‖² + ½‖b - P_G b‖², a scalar."""
    parts = []
    for layer, action in zip(layers, group, strict=True):
        parts.append((layer.weight - action.project(layer.weight)).square().sum() / 2)
        parts.append((layer.bias - action.project_bias(layer.bias)).square().sum() / 2)
    return torch.stack(parts).sum()


def network(points: int, copies: Sequence[int]) -> nn.Sequential:
    """Linear layers, first weights orthogonal and biases uniform in ±1/√m, with ReLU between."""
    widths = [2 * points, *(ORDER * number for number in copies), 2]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        linear = nn.Linear(before, after)
        nn.init.orthogonal_(linear.weight)
        nn.init.uniform_(linear.bias, -(after**-0.5), after**-0.5)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def linear_layers(model: nn.Module) -> list[nn.Linear]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]

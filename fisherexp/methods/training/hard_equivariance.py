"""Exactly equivariant layers, alone or with a residual pathway beside: what soft equivariance is compared with.

    equivariant:        W = P_G A
    residual pathway:   W = P_G A + B,   decay on B so much stronger that the equivariant part is preferred

Finzi, Benton, Wilson, Residual Pathway Priors, NeurIPS 2021, arXiv 2112.01388; P_G: equivariance.py.
"""

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.utils import parametrize

from fisherexp.config.types import NonNegative
from fisherexp.methods.training.equivariance import Action, actions, linear_layers
from fisherexp.methods.training.soft_equivariance import PlanarNetwork
from fisherexp.problems.mixed_symmetry import MixedSymmetry


class Projected(nn.Module):
    """P_G of a weight (m, n) or of a bias (m,), for torch.nn.utils.parametrize; it begins with what is there."""

    def __init__(self, action: Action) -> None:
        super().__init__()
        self.action = action

    def forward(self, tensor: Tensor) -> Tensor:
        return self.action.project(tensor) if tensor.dim() == 2 else self.action.project_bias(tensor)

    def right_inverse(self, tensor: Tensor) -> Tensor:
        return tensor


class WithResidual(Projected):
    """P_G A + B; B begins with what the projection leaves out, so that nothing changes at first."""

    def forward(self, equivariant: Tensor, residual: Tensor) -> Tensor:
        return super().forward(equivariant) + residual

    def right_inverse(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        projected = super().forward(tensor)
        return projected, tensor - projected


class Equivariant(PlanarNetwork):
    """group: G. Further options: see PlanarNetwork."""

    name = "equivariant"
    paper = "baseline of Kim et al., ICML 2023, arXiv 2306.00356"
    parametrization = Projected

    def __init__(self, group: Literal["turns", "mirror", "square"] = "square", **options: Any) -> None:
        super().__init__(**options)
        self.group = group

    def begin(self, problem: MixedSymmetry, seed: int) -> None:
        super().begin(problem, seed)
        layers = linear_layers(self.network)
        for layer, action in zip(layers, actions(self.group, problem.points, self.copies), strict=True):
            for name in ("weight", "bias"):
                parametrize.register_parametrization(layer, name, self.parametrization(action))
        self.train(self.network, self.learning_rate, "equivariance", seed)


class ResidualPathway(Equivariant):
    """residual_decay: of B, beside `decay` of everything. Further options: see Equivariant."""

    name = "residual_pathway"
    paper = "Finzi, Benton, Wilson, NeurIPS 2021, arXiv 2112.01388"
    search = {"residual_decay": "tag(log, interval(1e-3, 10))"}
    parametrization = WithResidual

    def __init__(self, residual_decay: NonNegative = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.residual_decay = residual_decay

    def penalty(self) -> Tensor:
        named = self.network.named_parameters()
        residuals = [p for name, p in named if name.endswith("original1")]
        return self.residual_decay * sum(p.square().sum() for p in residuals) / 2

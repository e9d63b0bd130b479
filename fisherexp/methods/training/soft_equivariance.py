"""Soft equivariance (PER): free weights that are drawn to each group's equivariant ones, less where the data object.

    min_θ  MSE + Σ_G λ_G R_G + ½ d ‖θ‖²,   R_G = Σ_layers ½‖W - P_G W‖² + ½‖b - P_G b‖²
    once, at step T*:   λ_G ← λ_G (R_min / R_G)^p,   R_G the smallest so far, R_min the smallest of all groups

Kim, Lee, Lee, Kim, Kim, ICML 2023, arXiv 2306.00356; the groups and their projections: equivariance.py. Values of R of
groups of different size are not comparable: normalized by those of the first weights, unless official=true. There the
smallest values are also kept as the authors' code keeps them, all of them anew when any of them falls.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fisherexp.config.types import AtLeastOne, Count, Distinct, NonNegative, Positive, Probability, Size
from fisherexp.methods.generation.network_by_steps import NetworkBySteps
from fisherexp.methods.training.equivariance import actions, linear_layers, network, residual
from fisherexp.problems.mixed_symmetry import MixedSymmetry


class PlanarNetwork(NetworkBySteps):
    """A step is one of Adam over all rows, its rate falling along a cosine. A subclass adds a `penalty`.

    copies: of the regular representation, eight numbers each, for each hidden layer. decay: d.
    steps, learning_rate: of the training.
    """

    problems = ("numerical",)
    requires = ("planar_points",)

    problem: MixedSymmetry

    def __init__(
        self,
        copies: AtLeastOne[Count] = (8, 8),
        decay: NonNegative = 2e-4,
        steps: Count = 1000,
        learning_rate: Positive = 5e-3,
    ) -> None:
        super().__init__()
        self.copies, self.decay, self.steps, self.learning_rate = copies, decay, steps, learning_rate

    def begin(self, problem: MixedSymmetry, seed: int) -> None:
        super().begin(problem, seed)
        self.inputs, self.targets = problem.instance["train.inputs"], problem.instance["train.targets"]
        # The weights are torch's own draws, which a run seeds.
        self.train(network(problem.points, self.copies), self.learning_rate, "equivariance", seed)

    def penalty(self) -> Tensor:
        """Beside the squared error and the decay; none as it stands."""
        return torch.zeros(())

    def loss(self) -> Tensor:
        size = sum(p.square().sum() for p in self.network.parameters()) / 2
        return F.mse_loss(self.network(self.inputs), self.targets) + self.decay * size + self.penalty()

    def solution(self) -> Callable[[Tensor], Tensor]:
        return torch.no_grad()(self.network)


def tuned(strengths: Tensor, residuals: Tensor, power: float) -> Tensor:
    """λ_G (R_min / R_G)^p of vectors over groups; R_min is over the groups with λ_G > 0."""
    return strengths * (residuals[strengths > 0].min() / residuals) ** power


class SoftEquivariance(PlanarNetwork):
    """groups: 'turns' (by quarters), 'mirror', 'square' (both). strength: λ of each at first; 0 is plain training.
    tune_at: T*, as a share of the steps, 1 for never. power: p. skip: steps whose R are not looked at, as they fall by
    themselves at first. official: as in the authors' code, see above. Further options: see PlanarNetwork.

    Metrics also, for each group: residual_<group>, R over that of the first weights at the end; strength_<group>, λ.
    """

    name = "soft_equivariance"
    paper = "Kim et al., ICML 2023, arXiv 2306.00356"
    search = {"strength": "tag(log, interval(1e-3, 10))"}
    headings = {
        "residual_turns": "residual\nof turns",
        "residual_mirror": "residual of\nmirroring",
        "strength_mirror": "strength of\nmirroring",
    }
    counts_with = {
        "skip": {"skip": 0},
        "power": {"skip": 0},
        "official": {"skip": 0},
        "tune_at": {"skip": 0, "tune_at": 0.7},
    }

    def __init__(
        self,
        groups: Distinct[Literal["turns", "mirror", "square"]] = ("turns", "mirror"),
        strength: NonNegative = 1.0,
        tune_at: Probability = 0.25,
        power: NonNegative = 2.0,
        skip: Size = 50,
        official: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.groups, self.strength, self.tune_at, self.power = groups, strength, tune_at, power
        self.skip, self.official = skip, official

    def begin(self, problem: MixedSymmetry, seed: int) -> None:
        super().begin(problem, seed)
        self.acting = [actions(group, problem.points, self.copies) for group in self.groups]
        self.strengths = torch.full((len(self.groups),), float(self.strength))
        with torch.no_grad():
            self.first = self.residuals()
        self.smallest = torch.full_like(self.first, torch.inf)

    def residuals(self) -> Tensor:
        """R_G, one for each group."""
        layers = linear_layers(self.network)
        return torch.stack([residual(layers, group) for group in self.acting])

    def penalty(self) -> Tensor:
        found = self.residuals()
        self.note(found.detach())
        return (self.strengths * found).sum()

    def note(self, found: Tensor) -> None:
        """Keep the smallest residuals (G,) seen, and adjust the strengths when it is time."""
        if self.updates >= self.skip:
            whole = self.official and bool((found < self.smallest).any())
            self.smallest = found if whole else torch.minimum(self.smallest, found)
        reached = self.updates == round(self.tune_at * self.steps) and self.updates < self.steps
        if reached and self.strength and self.smallest.isfinite().all():
            compared = self.smallest if self.official else self.smallest / self.first
            self.strengths = tuned(self.strengths, compared, self.power)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"strengths": self.strengths, "first": self.first, "smallest": self.smallest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.strengths, self.first, self.smallest = state["strengths"], state["first"], state["smallest"]

    def metrics(self) -> dict[str, float]:
        with torch.no_grad():
            left = self.residuals() / self.first
        found = {f"residual_{group}": value for group, value in zip(self.groups, left.tolist(), strict=True)}
        return found | {f"strength_{group}": v for group, v in zip(self.groups, self.strengths.tolist(), strict=True)}

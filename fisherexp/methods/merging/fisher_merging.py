"""Fisher merging: average experts, each parameter weighted by how sure its expert is of it.

    θ_j = Σ_k c_k F_kj θ_kj / Σ_k c_k F_kj

Matena, Raffel, NeurIPS 2022, arXiv 2111.09832: the mode of a product of Gaussians with diagonal precisions c_k F_k.
F_k is the diagonal Fisher of expert k on its task, with the exact expectation over labels, per sample.

As in the authors' code, each F_k is divided by its norm, and the first model's alone has a floor: where all Fishers
are tiny, the first model wins. With favor_first=false all of them have the floor, and there it is the plain mean.

Where the authors' code differs: it holds the floor against F_k as it is and divides by the norm after that
(floor_on=raw); our results were made with a floor on F_k divided by its norm, a larger share of whose entries lie below
it. It merges the body of the network only, since its tasks have heads of their own; here the head is shared and merged.

Much code that goes by this name squares the gradient of a batch's mean loss (or of a sum over samples and labels,
which keeps the cross terms): importance.gradients=batch_mean shows what that does.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import NonNegative
from fisherexp.methods.importance import Importance
from fisherexp.methods.merging.experts import ExpertFishers, Experts
from fisherexp.methods.merging.merging import State
from fisherexp.methods.merging.weighted_merging import WeightedMerging


def fisher_average(
    models: Sequence[State],
    fishers: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float] | None = None,
    floor: float = 1e-6,
    favor_first: bool = True,
) -> State:
    """Σ_k c_k F_k θ_k / Σ_k c_k F_k by name, computed in float64. weights: c, all equal by default.

    floor: the least Fisher of the first model, or without `favor_first` of every model.
    """
    weights = [1.0] * len(models) if weights is None else weights
    merged = {}
    for name, first in models[0].items():
        numerator, denominator = 0.0, 0.0
        for number, (model, fisher, weight) in enumerate(zip(models, fishers, weights, strict=True)):
            precision = fisher[name].to(first.device, torch.float64)
            if number == 0 or not favor_first:
                precision = precision.clamp(min=floor)
            numerator = numerator + weight * precision * model[name]
            denominator = denominator + weight * precision
        merged[name] = (numerator / denominator).to(first.dtype)
    return merged


def norm_of(fisher: Mapping[str, Tensor]) -> float:
    """The Fisher's Euclidean norm over all parameters; 1 for a Fisher of zeros, which nothing can normalize."""
    return torch.stack([values.double().square().sum() for values in fisher.values()]).sum().sqrt().item() or 1.0


def normalized(fisher: Mapping[str, Tensor]) -> State:
    """The Fisher divided by its norm."""
    norm = norm_of(fisher)
    return {name: values.double() / norm for name, values in fisher.items()}


class FisherMerging(WeightedMerging):
    """normalize, floor, floor_on, favor_first: see above. The rest as in WeightedMerging."""

    paper = "Matena, Raffel, NeurIPS 2022, arXiv 2111.09832"
    needs = (Experts(), ExpertFishers())

    def __init__(
        self,
        importance: Importance,
        normalize: bool = True,
        floor: NonNegative = 1e-6,
        floor_on: Literal["normalized", "raw"] = "normalized",
        favor_first: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.importance, self.normalize = importance, normalize
        self.floor, self.floor_on, self.favor_first = floor, floor_on, favor_first

    def merged(self, base: State, models: list[State], weights: list[float]) -> State:
        fishers = list(self.given["expert_fishers"].values())
        self.outcome["traces"] = [fisher.trace().item() for fisher in fishers]
        if self.normalize and self.floor_on == "raw":
            weights = [weight / norm_of(fisher) for weight, fisher in zip(weights, fishers, strict=True)]
        elif self.normalize:
            fishers = [normalized(fisher) for fisher in fishers]
        return fisher_average(models, fishers, weights, self.floor, self.favor_first)

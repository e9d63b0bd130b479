"""RegMean: the linear layer whose outputs are closest to those of each expert's on that expert's inputs.

    min_W Σ_k ‖X_k Wᵀ - X_k W_kᵀ‖²   ⟹   Wᵀ = (Σ_k G_k)⁻¹ Σ_k G_k W_kᵀ,   G_k = X_kᵀ X_k

Jin et al., ICLR 2023, arXiv 2212.09849. Off-diagonal entries of G_k are multiplied by `scale`. Biases, and all that is
no linear layer, are averaged, as in the authors' code. Where that differs: it divides each G_k by its number of rows.
Here they are sums, as in the paper; all tasks have equally many images, so the merged weights are the same. Of texts
the rows are tokens, without padding, and a task of longer texts counts for more.

Ours adds a small multiple of the identity to every G_k, so that where no expert ever had an input (a dead unit, a pixel
that is always black) it is the mean, and no singular system.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fisherexp.config.types import AtLeastOne, Positive, Probability
from fisherexp.methods.merging.experts import ExpertGrams, Experts
from fisherexp.methods.merging.merging import Merging, State, mean_of


def regression_mean(
    models: Sequence[State], grams: Sequence[Mapping[str, Tensor]], scale: float = 1.0, ridge: float = 1e-6
) -> State:
    """Parameters by name; `grams[k]` maps a linear layer's name to G_k (d_in, d_in), for weights (d_out, d_in).

    scale: of off-diagonal entries. ridge: as a share of the mean diagonal entry of all G_k.
    """
    merged = mean_of(models)
    for layer in grams[0]:
        name = f"{layer}.weight"
        weight = merged[name]
        given = [gram[layer].to(weight.device, torch.float64) for gram in grams]
        least = ridge * torch.stack([gram.diagonal().mean() for gram in given]).mean()
        if not least:  # no expert ever had an input other than zero
            continue
        scaled = [scale * gram + torch.diag((1 - scale) * gram.diagonal() + least) for gram in given]
        right = sum(gram @ model[name].double().T for gram, model in zip(scaled, models, strict=True))
        merged[name] = torch.linalg.solve(sum(scaled), right).T.to(weight.dtype).contiguous()
    return merged


class RegMean(Merging):
    """scales: of the off-diagonal entries, to choose from. ridge: see above."""

    name = "regmean"
    paper = "Jin et al., ICLR 2023, arXiv 2212.09849"
    needs = (Experts(), ExpertGrams())

    def __init__(self, scales: AtLeastOne[Probability], ridge: Positive = 1e-6, **options: Any) -> None:
        super().__init__(**options)
        self.scales, self.ridge = scales, ridge

    def grid(self) -> list[dict[str, Any]]:
        return [{"scale": scale} for scale in self.scales]

    def merged(self, base: State, models: list[State], scale: float) -> State:
        return regression_mean(models, list(self.given["expert_grams"].values()), scale, self.ridge)

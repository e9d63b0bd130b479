"""R-TSVM: TSVM with rows weighted by their outliers and ranks adapted to how sparse a layer's changes are.

After Yang et al., arXiv 2502.06876 (RESM in later versions). A RECONSTRUCTION: the paper's exact formulas and its code
were not to be had, so this is what its description says, written out:

    o_tr = Σ_c |D_trc| over the entries of row r beyond mean + 3 standard deviations of |D_t|,   per entry of the row
    w_tr = o_tr / Σ_s o_sr (1/T where no expert has an outlier in that row);   D_t ← T w_tr D_t, row by row
    z_l  = share of the entries of layer l, of all experts, below `sparse` times the largest one
    k_l  = round(k (1 - z_l) / mean_l (1 - z_l)), between 1 and k,   k = ⌊min(n, m) / T⌋

A layer that no expert has changed is in no mean.
It gives no evidence for or against the published figures.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fisherexp.config.types import Probability
from fisherexp.methods.merging.merging import State, mean_of
from fisherexp.methods.merging.tsvm import TSVM, full_rank, matrices, merged_matrix


def row_weights(deltas: Sequence[Tensor]) -> Tensor:
    """T w (T, n) of matrices (n, m): 1 everywhere means no reweighting. Columns sum to T."""
    scores = []
    for delta in deltas:
        size = delta.double().abs()
        scores.append((size * (size > size.mean() + 3 * size.std())).mean(1))
    scores = torch.stack(scores)
    total = scores.sum(0)
    return len(deltas) * torch.where(total > 0, scores / total, 1 / len(deltas))


def sparsity(deltas: Sequence[Tensor], sparse: float) -> float:
    """Share of all entries below `sparse` times the largest one, in absolute value."""
    sizes = torch.stack(list(deltas)).abs()
    return (sizes < sparse * sizes.max()).double().mean().item()


def reweighted_merge(
    deltas: Sequence[State], sparse: float, kernels: str = "average", reweight: bool = True, adapt: bool = True
) -> State:
    """The merged change by name. reweight, adapt: the two additions; without both it is TSVM."""
    merged = mean_of(deltas)
    views = [matrices(delta, kernels) for delta in deltas]
    changed = [name for name in views[0] if any(view[name].any() for view in views)]
    dense = {name: 1 - sparsity([view[name] for view in views], sparse) for name in changed}
    mean = sum(dense.values()) / max(1, len(dense))
    for name, share in dense.items():
        given = [view[name] for view in views]
        most = full_rank(given[0].shape, len(given))
        rank = min(most, max(1, round(most * share / mean))) if adapt and mean > 0 else most
        if reweight:
            weights = row_weights(given).to(given[0].dtype)
            given = [weight[:, None] * delta for weight, delta in zip(weights, given, strict=True)]
        merged[name] = merged_matrix(given, rank).view_as(merged[name])
    return merged


class RTSVM(TSVM):
    """sparse: what counts as no change, as a share of the largest. reweight, adapt: the two additions to TSVM."""

    name = "r_tsvm"
    # After a few steps of Adam no change stands out, and none is small.
    counts_with = {
        option: {"experts.training.optimizer": "sgd", "experts.training.lr": 0.1, "/model.hidden": [64]}
        for option in ("sparse", "reweight", "adapt")
    }
    counts_with["adapt"]["sparse"] = 0.1
    paper = "reconstruction after Yang et al., arXiv 2502.06876"

    def __init__(self, sparse: Probability = 0.01, reweight: bool = True, adapt: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.sparse, self.reweight, self.adapt = sparse, reweight, adapt

    def change(self, deltas: list[State]) -> State:
        return reweighted_merge(deltas, self.sparse, self.kernels, self.reweight, self.adapt)

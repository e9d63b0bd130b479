"""TIES: trim small changes, elect a sign for each parameter, average the changes that agree with it.

    δ'_k  = δ_k with all but its largest |entries| set to zero
    γ     = sign(Σ_k δ'_k)
    θ     = θ_0 + λ · mean of those δ'_kj whose sign is γ_j

Yadav et al., NeurIPS 2023, arXiv 2306.01708. As in the authors' code, entries are ranked over the whole model, not
within a layer; of d entries ⌊keep · d⌋ + 1 are kept, and all that are as large as the least of these; and where the sum
is zero the sign is that of the majority of all elected signs.
"""

from collections.abc import Sequence
from typing import Any

import torch

from fisherexp.config.types import AtLeastOne, Positive, Probability
from fisherexp.methods.merging.merging import Merging, State, moved, task_vectors


def trimmed(delta: State, keep: float) -> State:
    """The share `keep` of the entries that are largest in absolute value, all tensors together; the others are zero."""
    flat = torch.cat([values.flatten() for values in delta.values()])
    count = min(int(keep * len(flat)) + 1, len(flat))
    least = flat.abs().topk(count).values[-1]
    flat = torch.where(flat.abs() >= least, flat, 0)
    parts = flat.split([values.numel() for values in delta.values()])
    return {name: part.view_as(values) for (name, values), part in zip(delta.items(), parts, strict=True)}


def agreed(deltas: Sequence[State]) -> State:
    """For each entry the mean of those that are not zero and have the elected sign; zero where there is none."""
    signs = {name: sum(delta[name] for delta in deltas).sign() for name in deltas[0]}
    majority = torch.stack([sign.sum() for sign in signs.values()]).sum().sign()
    merged = {}
    for name, sign in signs.items():
        elected = torch.where(sign == 0, majority, sign)
        stacked = torch.stack([delta[name] for delta in deltas])
        agrees = stacked * elected > 0
        merged[name] = (stacked * agrees).sum(0) / agrees.sum(0).clamp(min=1)
    return merged


class TIES(Merging):
    """keep: share of each expert's changes that are kept. scales: λ to choose from."""

    paper = "Yadav et al., NeurIPS 2023, arXiv 2306.01708"

    def __init__(self, keep: Probability, scales: AtLeastOne[Positive], **options: Any) -> None:
        super().__init__(**options)
        self.keep, self.scales = keep, scales

    def grid(self) -> list[dict[str, Any]]:
        return [{"scale": scale} for scale in self.scales]

    def merged(self, base: State, models: list[State], scale: float) -> State:
        return moved(base, agreed([trimmed(delta, self.keep) for delta in task_vectors(base, models)]), scale)

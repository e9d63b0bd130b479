"""SoKA: the leading Kronecker products of the weights, taken out of what is frozen and trained.

    W' = W + Σ_{k ≤ r} (A_k ⊗ B_k - A_k⁰ ⊗ B_k⁰),   W ≈ Σ_{k ≤ r} A_k⁰ ⊗ B_k⁰ the best sum of r products

Paper: Chong and Qu, 2025, arXiv 2506.15251; see fisherexp/adapters/soka.py, also for what the text leaves open. No code
of the authors is known.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import Count, Probability
from fisherexp.methods.finetuning.finetuning import AdapterTuning


class SoKA(AdapterTuning):
    """terms: r; null for what the spectrum says: the smaller of the elbow and what holds `energy`. Others as for
    AdapterTuning.
    """

    name = "soka"
    paper = "Chong and Qu, 2025, arXiv 2506.15251"
    search = {"finetune.lr": "tag(log, interval(1e-3, 1e-1))"}
    counts_with = {
        "energy": {"terms": None, "energy": 0.01},
        "by_layer": {"by_layer": {"backbone": {"terms": 2}}},
    }

    def __init__(self, model: nn.Module, energy: Probability, terms: Count | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        self.terms, self.energy = terms, energy

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return adapters.SoKA(weight, **{"terms": self.terms, "energy": self.energy} | options)

"""LoKU: the inverted hinge loss, by low-rank adapters that begin with what matters to forgotten texts (FILA).

Paper: Cha, Cho, Hwang, Lee, ICLR 2025, arXiv 2408.06621. With F_f and F_r the diagonal Fishers of D_f and D_r at the
source, squared gradients of batch means, for every adapted weight W,

    M = F_f / (F_r + ε),   w_i = √Σ_j M_ij          importance of row i; see fisherexp/adapters/fila.py
    L(A, B) = mean IHL(B_f) + α mean CE(B_r)        see inverted_hinge.py; α = 1 as published

The published ε of 1e-5 can be far above F_r, and retained texts then have no say in w: `relative` takes it as a share
of the mean of F_r in that weight. In a batch mean every sequence counts alike, there every token. The learning rate
falls by a half cosine after one epoch of warm-up, there by a line.
"""

import dataclasses
import re
from typing import Any, Literal

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import FILA, Adapter
from fisherexp.adapters.layers import adapted_kind
from fisherexp.adapters.targets import first_match
from fisherexp.config.types import Count, NonNegative, Positive
from fisherexp.data.batch import Batch
from fisherexp.data.composite import SideBySide
from fisherexp.methods.finetuning.finetuning import AdapterTuning
from fisherexp.methods.importance import Importance
from fisherexp.methods.need import Costs, Need
from fisherexp.methods.unlearning.batches import forgotten_with_retained
from fisherexp.methods.unlearning.inverted_hinge import inverted_hinge
from fisherexp.methods.unlearning.sequence_losses import counted


class PartFisher(Need):
    """The diagonal Fisher of one part of the data at the source, as the method's `importance` says."""

    def __init__(self, part: str) -> None:
        super().__init__(f"{part}_fisher")
        self.part = part

    def resolve(self, bench: Any, method: Any, source: Any) -> tuple[Any, Costs]:
        parts = {"train": bench.setting.parts[self.part]}
        alone = dataclasses.replace(bench.setting, parts=parts, forgotten=None)
        fisher, cost = bench.variation(f"{self.part}:", bench.seed, alone).fisher(method.importance, source)
        return fisher, [cost]


def row_importance(forget: Tensor, retain: Tensor, epsilon: float, relative: bool = False) -> Tensor:
    """√Σ_j F_f / (F_r + ε) of each row: Fishers (m, n) -> (m,). relative: ε in units of the mean of F_r."""
    forget, retain = forget.double(), retain.double()
    return (forget / (retain + (epsilon * retain.mean() if relative else epsilon))).sum(1).sqrt()


class LoKU(AdapterTuning):
    """rank: r. alpha: of the adapters; their product is scaled by alpha / r. retain_weight: α of the loss.
    svd: 'exact' or 'randomized', see FILA. epsilon, relative: ε of M. importance: how the Fishers are estimated.
    Others as for AdapterTuning; adapters are merged at the end. An epoch is one pass over the forgotten part.
    """

    name = "loku"
    paper = "Cha et al., ICLR 2025, arXiv 2408.06621"
    requires = ("class_labels or next_tokens",)
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "forget"
    needs = (PartFisher("forget"), PartFisher("retain"))
    weighs_samples = False
    counts_with = {"trained": {"trained": r"^head\."}, "head_lr": {"trained": r"^head\."}}

    def __init__(
        self,
        model: nn.Module,
        rank: Count,
        alpha: Positive,
        retain_weight: NonNegative,
        svd: Literal["exact", "randomized"],
        epsilon: Positive,
        relative: bool,
        importance: Importance,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.rank, self.alpha, self.retain_weight = rank, alpha, retain_weight
        self.svd, self.epsilon, self.relative = svd, epsilon, relative
        self.importance = importance

    def batches(self, setting: Any) -> SideBySide:
        return forgotten_with_retained(setting)

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return FILA(weight, **{"rank": self.rank, "alpha": self.alpha, "svd": self.svd} | options)

    def freeze(self) -> None:
        by_layer = self.by_layer or {}
        own = {
            f"^{re.escape(name)}$": {**(first_match(by_layer, name) or {}), "importance": self.rows_of(name)}
            for name in adapters.layer_names(self.model, self.targets, self.exclude)
        }
        chosen = {"exclude": self.exclude, "options": own | by_layer, "trained": self.trained, "dropout": self.dropout}
        adapters.inject(self.model, self.targets, self.adapter, **chosen)

    def rows_of(self, layer: str) -> Tensor:
        """w (m,) of the weight of a layer."""
        kind = adapted_kind(self.model.get_submodule(layer))
        forget, retain = (
            kind.to_matrix(self.given[f"{part}_fisher"][f"{layer}.weight"]) for part in ("forget", "retain")
        )
        return row_importance(forget, retain, self.epsilon, self.relative)

    def loss(self, batch: Batch) -> Tensor:
        forget, logits = batch.tags["forgotten"], self.model(batch.inputs)
        forgotten = inverted_hinge(*counted(logits[forget], batch.targets[forget])).mean()
        retained = self.objective.loss(logits[~forget], batch.targets[~forget])
        return forgotten + self.retain_weight * retained + adapters.penalty(self.model).to(self.device)

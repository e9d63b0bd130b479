"""L2-SP: weight decay towards the starting point instead of towards zero.

Paper: Li, Grandvalet, Davoine, ICML 2018, arXiv 1802.01483:

    L(w) = L_t(w) + α/2 ||w_S - w⁰_S||² + β/2 ||w_S̄||²

w_S are the parameters shared with the starting point w⁰ (here: the latest solution), w_S̄ those of a new head. Where
tasks share the head, as they do here, it is held like everything else: head=shared.
"""

from typing import Literal

import torch
from torch import nn

from fisherexp.config.types import NonNegative
from fisherexp.data.batch import Batch
from fisherexp.methods.continual_learning.anchored import AnchoredTraining, snapshot
from fisherexp.methods.recipe import Recipe
from fisherexp.scenarios.setting import Setting


class L2SP(AnchoredTraining):
    """lambda_: the paper's α. beta: weight of the decay of the head under head='new'."""

    name = "l2_sp"
    paper = "Li, Grandvalet, Davoine, ICML 2018, arXiv 1802.01483"
    search = {"lambda_": "tag(log, interval(0.001, 10))"}
    weighs_samples = True
    counts_with = {"beta": {"head": "new"}}

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        lambda_: NonNegative,
        head: Literal["shared", "new"],
        beta: NonNegative,
        **options,
    ) -> None:
        super().__init__(model, training, lambda_, **options)
        self.head, self.beta = head, beta

    def finish_task(self, task: Setting) -> None:
        anchor = snapshot(self.model)
        held = {name: p for name, p in anchor.items() if self.head == "shared" or not name.startswith("head.")}
        self.memory["anchors"] = [{"omega": {name: torch.ones_like(p) for name, p in held.items()}, "anchor": held}]

    def loss(self, batch: Batch) -> torch.Tensor:
        loss = super().loss(batch)
        if self.head == "new" and self.memory["anchors"]:
            loss = loss + self.beta / 2 * sum(p.square().sum() for p in self.model.head.parameters())
        return loss

"""AlignGuard-LoRA: split each low-rank update into the part that former behavior depends on and the rest.

Paper: arXiv 2508.02079, 2025. Per adapted weight W (d, k) with update ΔW = ΔW_A + ΔW_T,

    L = L_t + λ_A ||F^½ ΔW_A||² + λ_T ||H^½ ΔW_T||² + λ_NC [a E_rm + (1 - a) E_geo],   summed over layers
    E_rm = Σ_ij η_ij |ΔW_A,ij ΔW_T,ij|,  η_ij = 1 + β sigmoid(|W_ij| - τ)
    E_geo = <ΔW_A, ΔW_T>² / (||ΔW_A||² ||ΔW_T||² + ε)

F is the Fisher of the former tasks. `split` says what ΔW_A is:
- eig (the paper): U Uᵀ ΔW, with U the top eigenvectors of the row Fisher E[G Gᵀ] (d, d), G = ∂L/∂W of a sample. The
  two parts are then orthogonal, E_geo is identically zero, and its weight does nothing;
- mask: the coordinates of the largest diagonal Fisher. No coordinate is in both, so that E_rm is zero as well;
- two_adapters: an adapter of its own for each. Only here are all terms at work.
The record says which terms were (outcome["terms"]).

No published code reproduces the paper; this is written from its formulas. `damping` chooses F: rows (the paper's
tr(ΔW_Aᵀ F ΔW_A)) or diagonal (Σ_ij F_ij ΔW_A,ij²). Former behavior is that of all former tasks, whose Fishers add up.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from fisherexp.adapters import adapted_layers
from fisherexp.config.types import Count, NonNegative, Positive, Probability
from fisherexp.data.batch import Batch
from fisherexp.methods.alignment import coherence, largest_entries, overlap, term_weights, top_eigenvectors
from fisherexp.methods.continual_learning.anchored import added
from fisherexp.methods.continual_learning.ewc import task_fisher
from fisherexp.methods.continual_learning.rows import row_fisher
from fisherexp.methods.continual_learning.sequential_lora import SequentialLoRA, updates
from fisherexp.methods.importance import Importance
from fisherexp.methods.recipe import Recipe
from fisherexp.scenarios.setting import Setting

ACTIVE = 1e-6  # nats: a term that never got larger, weight included, did nothing


class AlignGuardLoRA(SequentialLoRA):
    """share: of the eigenvectors, or coordinates, that make ΔW_A. lambda_, lambda_t, lambda_nc: λ_A, λ_T, λ_NC. mix: a.
    beta, tau: of η. stabilizer: H, identity or the Fisher's diagonal. importance: that diagonal. Others as for
    SequentialLoRA.
    """

    name = "alignguard_lora"
    paper = "AlignGuard-LoRA, 2025, arXiv 2508.02079"
    search = {"lambda_": "tag(log, interval(1, 1e5))"}
    weighs_samples = False
    counts_with = {
        "importance.labels": {"split": "mask", "damping": "diagonal"},
        "importance.gradients": {"split": "mask", "damping": "diagonal"},
        "importance.batch_size": {
            "split": "mask",
            "damping": "diagonal",
            "importance.gradients": "batch_mean",
            "importance.labels": "empirical",
        },
    }

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        rank: Count,
        alpha: Positive,
        lr: Positive,
        split: Literal["eig", "mask", "two_adapters"],
        share: Probability,
        damping: Literal["rows", "diagonal"],
        stabilizer: Literal["identity", "diagonal"],
        lambda_: NonNegative,
        lambda_t: NonNegative,
        lambda_nc: NonNegative,
        mix: Probability,
        beta: NonNegative,
        tau: NonNegative,
        importance: Importance,
    ) -> None:
        super().__init__(model, training, rank, alpha, lr)
        self.split, self.share, self.damping, self.stabilizer = split, share, damping, stabilizer
        self.weights = term_weights(lambda_, lambda_t, lambda_nc, mix)
        self.beta, self.tau, self.importance = beta, tau, importance
        self.per_layer = 2 if split == "two_adapters" else 1
        self.memory |= {"rows": {}, "diagonal": {}, "parts": {}, "largest": {}}

    def finish_task(self, task: Setting) -> None:
        super().finish_task(task)
        by_row = row_fisher(self.model, task.loader("train"))
        diagonal = dict(task_fisher(self.model, task, self.importance, self.memory["task"]).items())
        if self.memory["rows"]:
            by_row, diagonal = added(self.memory["rows"], by_row), added(self.memory["diagonal"], diagonal)
        if self.split == "eig":
            parts = {name: top_eigenvectors(matrix, self.share) for name, matrix in by_row.items()}
        else:
            parts = {name: largest_entries(diagonal[f"{name}.weight"], self.share) for name in by_row}
        self.memory |= {"rows": by_row, "diagonal": diagonal, "parts": parts}

    def parts(self, name: str, found: list[Tensor]) -> tuple[Tensor, Tensor]:
        """ΔW_A and ΔW_T of a layer."""
        if self.split == "two_adapters":
            return found[0], found[1]
        (update,), part = found, self.memory["parts"][name]
        aligned = part @ (part.T @ update) if self.split == "eig" else torch.where(part, update, 0.0)
        return aligned, update - aligned

    def terms(self) -> dict[str, Tensor]:
        """Each term, summed over layers, without its weight. Empty before there are adapters."""
        found: dict[str, list[Tensor]] = {}
        layers = adapted_layers(self.model)
        for name, given in updates(self.model).items():
            aligned, rest = self.parts(name, given)
            weight = layers[name].frozen_weight
            diagonal = self.memory["diagonal"][f"{name}.weight"]
            if self.damping == "rows":
                damped = (aligned * (self.memory["rows"][name] @ aligned)).sum()
            else:
                damped = (diagonal * aligned.square()).sum()
            metric = 1.0 if self.stabilizer == "identity" else diagonal
            here = {
                "alignment": damped,
                "task": (metric * rest.square()).sum(),
                "overlap": overlap(aligned, rest, weight, self.beta, self.tau),
                "coherence": coherence(aligned, rest),
            }
            for term, value in here.items():
                found.setdefault(term, []).append(value)
        return {term: torch.stack(values).sum() for term, values in found.items()}

    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(batch)
        if any(self.weights.values()):
            largest = self.memory["largest"]
            for term, value in self.terms().items():
                weighted = self.weights[term] * value
                loss = loss + weighted
                largest[term] = torch.maximum(largest.get(term, weighted.detach()), weighted.detach())
        return loss

    def on_train_end(self) -> None:
        super().on_train_end()
        largest = {term: value.item() for term, value in self.memory["largest"].items()}
        self.outcome["terms"] = {t: {"largest": value, "active": value > ACTIVE} for t, value in largest.items()}

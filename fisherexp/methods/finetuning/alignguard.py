"""AlignGuard-LoRA from a source: an update that spares what the source's own data depend on.

    L = L_task + λ_A ‖F^½ ΔW_A‖² + λ_T ‖H^½ ΔW_T‖² + λ_NC [a E_rm + (1 - a) E_geo],   summed over layers

Paper: arXiv 2508.02079, 2025; terms, and which of them can do anything, are those of `alignguard_lora`, which trains on
all tasks in turn. Here the source has learned the first elsewhere (`source.data`), once for all runs, and F is its
Fisher there. ΔW_A is U Uᵀ ΔW (split=eig, as published) or the entries of the largest diagonal Fisher (mask).

With split=mask, share=1, damping=diagonal and λ_T = λ_NC = 0 this is LoRA with EWC of strength 2 λ_A on its update.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.config.types import NonNegative, Probability
from fisherexp.data.batch import Batch
from fisherexp.methods.alignment import coherence, largest_entries, overlap, term_weights, top_eigenvectors
from fisherexp.methods.finetuning.lora import LoRA
from fisherexp.methods.finetuning.source_fisher import SourceFishers


class AlignGuard(LoRA):
    """share: of the eigenvectors, or entries, that make ΔW_A. lambda_, lambda_t, lambda_nc: λ_A, λ_T, λ_NC. mix: a.
    beta, tau: of E_rm. damping: F by rows, as published, or entry by entry. stabilizer: H, identity or the Fisher's
    diagonal. Others as for LoRA; linear layers only.

    outcome: also terms, the last step's, each with its weight.
    """

    name = "alignguard"
    stream = "LoRA"  # begins as LoRA does and sees the same batches: runs differ by the terms alone
    paper = "AlignGuard-LoRA, 2025, arXiv 2508.02079"
    search = {"finetune.lr": "tag(log, interval(1e-3, 1e-1))", "lambda_": "tag(log, interval(1e-2, 1e5))"}
    needs = (SourceFishers(),)
    takes_rows = False
    of_source_data = True  # it needs a source that is trained on data of its own
    weighs_samples = False

    def __init__(
        self,
        model: nn.Module,
        split: Literal["eig", "mask"],
        share: Probability,
        damping: Literal["rows", "diagonal"],
        stabilizer: Literal["identity", "diagonal"],
        lambda_: NonNegative,
        lambda_t: NonNegative,
        lambda_nc: NonNegative,
        mix: Probability,
        beta: NonNegative,
        tau: NonNegative,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.split, self.share, self.damping, self.stabilizer = split, share, damping, stabilizer
        self.weights = term_weights(lambda_, lambda_t, lambda_nc, mix)
        self.beta, self.tau = beta, tau
        self.guarded: dict[str, Tensor] = {}  # by layer: U (m, k), or a mask (m, n)
        self.last_terms: dict[str, Tensor] = {}

    def freeze(self) -> None:
        super().freeze()
        rows, diagonal, _ = self.given["source_fishers"]
        if self.split == "eig":
            self.guarded = {name: top_eigenvectors(fisher, self.share) for name, fisher in rows.items()}
        else:
            self.guarded = {name: largest_entries(fisher, self.share) for name, fisher in diagonal.items()}

    def on_train_start(self) -> None:
        rows, diagonal, _ = self.given["source_fishers"]
        self.rows, self.diagonal, self.guarded = (
            {name: tensor.to(self.device) for name, tensor in found.items()} for found in (rows, diagonal, self.guarded)
        )

    def parts(self, name: str, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ΔW_A, ΔW_T and F ΔW_A of a layer's update L R; U Uᵀ L is thin, so that products stay cheap."""
        update, part = left @ right, self.guarded[name]
        if self.split == "eig":
            thin = part @ (part.mT @ left)
            aligned, by_rows = thin @ right, (self.rows[name] @ thin) @ right
        else:
            aligned = torch.where(part, update, 0.0)
            by_rows = self.rows[name] @ aligned
        return aligned, update - aligned, by_rows if self.damping == "rows" else self.diagonal[name] * aligned

    def term(self, term: str, name: str, weight: Tensor, aligned: Tensor, rest: Tensor, damped: Tensor) -> Tensor:
        """One term of a layer, without its λ."""
        if term == "alignment":
            return (aligned * damped).sum()
        if term == "task":
            return ((1.0 if self.stabilizer == "identity" else self.diagonal[name]) * rest.square()).sum()
        if term == "overlap":
            return overlap(aligned, rest, weight, self.beta, self.tau)
        return coherence(aligned, rest)

    def terms(self) -> dict[str, Tensor]:
        """Each term, summed over layers, with its weight."""
        found = {term: torch.zeros((), device=self.device) for term in self.weights}
        for name, layer in adapters.adapted_layers(self.model).items():
            parts = self.parts(name, *layer.factors())
            for term, weight in self.weights.items():
                if weight:
                    found[term] = found[term] + weight * self.term(term, name, layer.frozen_weight, *parts)
        return found

    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(batch)
        if any(self.weights.values()):
            self.last_terms = self.terms()
            loss = loss + torch.stack(list(self.last_terms.values())).sum()
        return loss

    def on_train_end(self) -> None:
        super().on_train_end()
        self.outcome["terms"] = {term: value.item() for term, value in self.last_terms.items()}

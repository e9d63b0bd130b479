"""Label-free SSD: dampen by how much the length of the logits depends on a weight.

Paper: Foster, Schoepf, Brintrup, "Loss-Free Machine Unlearning", arXiv 2402.19308. Over batches b of D and of D_f,

    I[j] = (1/#b) Σ_b | ∂/∂θ_j  (1/|b|) Σ_{x ∈ b} ||f(x)||² |,   f: logits,  in eval mode

takes the place of the Fisher in SSD; selection I_f > α I_D and shrinkage min(λ I_D / I_f, 1) stay. No label is used,
but as in the official code batches follow [retain sorted by class, forget], since the gradient is of a batch's mean.
f of a sequence: its logits wherever a token is predicted, and not at padding, of which neighbours in a batch decide.

No α is published with the code. For batches of one I_D = (|D_f| I_f + |D_r| I_r) / |D| as for SSD, so that ratios
have the bound |D|/|D_f|; `alpha_relative` is α as a share of it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative
from fisherexp.data.batch import Batch
from fisherexp.data.composite import InTurn
from fisherexp.methods.importance import Importance
from fisherexp.methods.method import ModelMethod
from fisherexp.methods.unlearning.dampening import dampen_model, one_then_forgotten, warn_if_idle
from fisherexp.objectives.token_prediction import IGNORED, wide


def length_gradient(model: nn.Module, inputs: Any, targets: Tensor | None = None) -> dict[str, Tensor]:
    """|∂ mean ||f(x)||² / ∂θ| by parameter, with the model in the mode it is in. targets: of sequences, (B, T)."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    squares = wide(model(inputs)).square()
    if targets is not None:
        squares = squares * (targets != IGNORED).unsqueeze(-1)
    gradients = torch.autograd.grad(squares.flatten(1).sum(1).mean(), list(weights.values()))
    return {name: gradient.abs() for name, gradient in zip(weights, gradients, strict=True)}


class LFSSD(ModelMethod):
    """alpha: selection threshold; None for alpha_relative · |D|/|D_f|. lambda_: dampening strength."""

    paper = "Foster et al., arXiv 2402.19308"
    scenarios = ("forgetting",)
    start = "source"
    steps_itself = True
    fits_on = "train"

    def __init__(
        self,
        model: nn.Module,
        alpha: NonNegative | None,
        alpha_relative: NonNegative,
        lambda_: NonNegative,
        batch_size: Count,
    ) -> None:
        super().__init__(model)
        self.alpha, self.alpha_relative, self.lambda_ = alpha, alpha_relative, lambda_
        self.order = Importance(gradients="batch_mean", batch_size=batch_size, order="by_class")
        self.bound = float("nan")
        self.sums: dict[str, dict[str, Tensor]] = {"train": {}, "forget": {}}
        self.counts = {"train": 0, "forget": 0}

    def batches(self, setting: Any) -> InTurn:
        self.bound = len(setting.parts["train"]) / len(setting.parts["forget"])
        return one_then_forgotten(setting, "train", self.order)

    def on_train_start(self) -> None:
        for sums in self.sums.values():  # restored ones may lie elsewhere
            sums.update({name: total.to(self.device) for name, total in sums.items()})

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        part = "forget" if batch.tags["forget_pass"].all() else "train"
        self.model.eval()
        targets = batch.targets if self.objective.likelihood == "sequence" else None
        for name, gradient in length_gradient(self.model, batch.inputs, targets).items():
            # At least 32 bits, however narrow the weights: small terms would be lost in the sum.
            gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
            self.sums[part][name] = self.sums[part][name] + gradient if name in self.sums[part] else gradient
        self.counts[part] += 1

    def on_train_end(self) -> None:
        everything, forget = (
            {name: total / self.counts[part] for name, total in self.sums[part].items()} for part in ("train", "forget")
        )
        alpha = self.alpha_relative * self.bound if self.alpha is None else self.alpha
        self.outcome = dampen_model(self.model, forget, everything, alpha, self.lambda_) | {"bound": self.bound}
        warn_if_idle("LFSSD", self.outcome)

    def configure_optimizers(self) -> None:
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["importance"] = {"sums": self.sums, "counts": self.counts}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.sums, self.counts = checkpoint["importance"]["sums"], checkpoint["importance"]["counts"]

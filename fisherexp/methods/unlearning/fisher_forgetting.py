"""Fisher forgetting: add noise to each weight, the more the less retained data depend on it.

Paper: Golatkar, Achille, Soatto, CVPR 2020, arXiv 1911.04933; constants of the code that the SSD authors use
(2308.07707). With F the diagonal Fisher of D_r, exact over the model's own labels, per sample,

    w_j ~ N(μ_j, v_j),   μ_j = w_j,   v_j = α min(1 / (F_j + 1e-8), 1e3),   the cap being 1e2 in the head

v is averaged over dimension 1 of tensors that have one, so that all inputs of a unit get one noise level. For each
class without retained samples the rows of the head get μ = 0 and v = 1e-4; of texts, for each token that no retained
text has. Last, v is ten times as large in the head and for one-dimensional weights (biases, batch normalization); so
that forgotten rows have 1e-3.

The code tells the head by its number of rows, here it is `head`: another layer of C rows is not taken for one, but an
embedding that a language model's head is tied to is one.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import NonNegative
from fisherexp.methods.importance import FisherPass, Importance
from fisherexp.objectives.token_prediction import IGNORED
from fisherexp.seeds import generator

FORGOTTEN_VARIANCE = 1e-4


def noise_of(
    weight: Tensor, fisher: Tensor, alpha: float, is_head: bool, forgotten: list[int]
) -> tuple[Tensor, Tensor]:
    """Mean and variance of one weight tensor. forgotten: rows of a head to be replaced by noise."""
    mean = weight.clone()
    variance = alpha * (1 / (fisher + 1e-8)).clamp(max=1e2 if is_head else 1e3)
    if weight.dim() > 1:
        variance = variance.mean(dim=1, keepdim=True).expand_as(weight).clone()
    if is_head:
        mean[forgotten] = 0
        variance[forgotten] = FORGOTTEN_VARIANCE
    if is_head or weight.dim() == 1:
        variance = 10 * variance
    return mean, variance


class FisherForgetting(FisherPass):
    """One epoch over the retained part for its Fisher, then one draw of the weights. alpha: scale of the noise.

    Raises ValueError for importance.labels=expected on texts, which would take hours.
    """

    paper = "Golatkar et al., CVPR 2020, arXiv 1911.04933"
    requires = ("class_labels or next_tokens", "features")
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "retain"

    def __init__(self, model: nn.Module, alpha: NonNegative, importance: Importance) -> None:
        super().__init__(model, importance)
        self.alpha = alpha
        self.seed = 0
        self.forgotten: list[int] = []

    def batches(self, setting: Any) -> Any:
        if setting.data.objective.likelihood == "sequence" and self.importance.labels == "expected":
            raise ValueError(
                "method.importance.labels=expected would take hours: a gradient for every token of the vocabulary at "
                "every place of a text; set method.importance.labels=sampled"
            )
        self.seed = setting.seed
        kept, gone = (set(setting.parts[part].targets.unique().tolist()) for part in ("retain", "forget"))
        self.forgotten = sorted(gone - kept - {IGNORED})
        return super().batches(setting)

    def on_train_end(self) -> None:
        super().on_train_end()
        self.outcome = self.edit()

    @torch.no_grad()
    def edit(self) -> dict[str, Any]:
        """Draw the weights in place. Returns the standard deviation of the noise, by layer."""
        stream, deviations = generator("fisher_forgetting", self.seed), {}
        for name, weight in self.model.named_parameters():
            if name not in self.fisher.names:
                continue
            fisher = self.fisher[name].to(weight.device)
            is_head = any(weight is own for own in self.model.head.parameters())  # by another name, where it is tied
            mean, variance = noise_of(weight, fisher, self.alpha, is_head, self.forgotten)
            noise = torch.randn(weight.shape, generator=stream).to(mean)
            weight.copy_(mean + variance.sqrt() * noise)
            deviations[name] = variance.mean().sqrt().item()
        return {"forgotten": self.forgotten, "deviation_by_layer": deviations}

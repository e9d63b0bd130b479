"""The next token at every position of a sequence."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from fisherexp.metrics.language import LanguageMetrics
from fisherexp.objectives.objective import Objective, reduced

IGNORED = -100  # no token to predict here


class TokenPrediction(Objective):
    """Softmax cross-entropy of logits (B, T, V) with tokens (B, T), of which -100 is none.

    The loss is a mean over tokens, each with the weight of its sequence. The likelihood of the curvature engine is that
    of sequences: a sample is a sequence, and its loss the mean over its tokens.
    """

    likelihood = "sequence"

    def loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        reduction: Literal["mean", "sum"] = "mean",
        weights: Tensor | None = None,
    ) -> Tensor:
        outputs = wide(outputs)
        if weights is not None:
            each = F.cross_entropy(outputs.transpose(1, -1), targets, reduction="none", ignore_index=IGNORED)
            return reduced(each, weights[:, None] * (targets != IGNORED), reduction)
        return F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction=reduction)

    def sample_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        each = F.cross_entropy(wide(outputs).transpose(1, -1), targets, reduction="none", ignore_index=IGNORED)
        return each.sum(1) / (targets != IGNORED).sum(1).clamp_min(1)  # 0 where there is nothing to predict

    def metrics(self, names: tuple[str, ...], held_out: str | None = None) -> LanguageMetrics:
        return LanguageMetrics(names)


def wide(outputs: Tensor) -> Tensor:
    """Logits of narrow weights in float32: a sum over a vocabulary has few digits left in 16 bits."""
    return outputs.float() if outputs.dtype.itemsize < 4 else outputs

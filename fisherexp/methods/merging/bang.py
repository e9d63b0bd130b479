"""BANG: WiSE-FT with a model that was fine-tuned to be less sure of itself.

Lin et al., ICLR 2024, arXiv 2309.17230: an over-confident fine-tuned model outweighs the source in the mean, and label
smoothing or mixup in fine-tuning restores the balance. There is no official code. Which of the two is a matter of
`experts`: SmoothedMixup below is both, and alpha=0 or epsilon=0 leaves one of them.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from fisherexp.config.types import Probability
from fisherexp.methods.merging.wise_ft import WiSEFT
from fisherexp.methods.mixup.mixing import mixed_cross_entropy
from fisherexp.methods.mixup.mixup import Mixup


class SmoothedMixup(Mixup):
    """Mixup with cross-entropy to smoothed targets. epsilon: probability spread over all classes; else as mixup.

    Raises ValueError for loss='mse'.
    """

    paper = "Lin et al., ICLR 2024, arXiv 2309.17230"

    def __init__(self, epsilon: Probability = 0.1, **options: Any) -> None:
        super().__init__(**options)
        if self.raw_outputs:
            raise ValueError("experts.loss=mse: smoothed targets are those of the cross-entropy; nearest: loss=ce")
        self.epsilon = epsilon
        self.mixed_loss = self._smoothed

    def _smoothed(self, logits: Tensor, labels: Tensor, others: Tensor, lam: Tensor) -> Tensor:
        even = -F.log_softmax(logits, 1).mean()
        return (1 - self.epsilon) * mixed_cross_entropy(logits, labels, others, lam) + self.epsilon * even


class BANG(WiSEFT):
    """Options as for WiSE-FT."""

    name = "bang"
    paper = "Lin et al., ICLR 2024, arXiv 2309.17230"

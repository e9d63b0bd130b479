"""ShrinkMatch: samples of which a model is not sure train it among fewer classes.

    u = 1[max p ≥ τ] · CE(f(strong(x)), p) + s · 1[max p < τ] · max p · CE'(g(strong(x)), argmax p)
    p = softmax f(weak(x))

CE' is over the likeliest class and those left when the runners-up have gone (shrinking.py), g an auxiliary head on the
same features, and s the moving average of the share of sure samples. Yang et al., ICCV 2023, arXiv 2308.06777.

The authors' code begins s anew at each of its epochs of 1024 steps (reset_each_epoch=true). Its decay acts on scales of
the auxiliary head's normalization as well, by a slip of names; here it does not.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Probability
from fisherexp.methods.training.semi_supervised import SemiSupervised
from fisherexp.methods.training.shrinking import shrunk_losses
from fisherexp.ranks import mean_over_ranks

QUEUE = 32  # batches whose mean probabilities are remembered
MOMENTUM = 0.999  # of s


class ShrinkMatch(SemiSupervised):
    """threshold: τ. alignment: p is divided by its mean over the last 32 batches, and normalized. shrinking: without it
    this is FixMatch with soft labels. reset_each_epoch: see above. Further options: see SemiSupervised.
    """

    paper = "Yang et al., ICCV 2023, arXiv 2308.06777"
    counts_with = {  # soon enough some are sure and some are not
        "unlabelled_weight": {"threshold": 0.0},
        "alignment": {"threshold": 0.2},
        "shrinking": {"threshold": 0.2},
        "reset_each_epoch": {"threshold": 0.13},
    }

    def __init__(
        self,
        threshold: Probability = 0.95,
        alignment: bool = True,
        shrinking: bool = True,
        reset_each_epoch: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.threshold, self.alignment, self.shrinking = threshold, alignment, shrinking
        self.reset_each_epoch = reset_each_epoch

    def begin(self, num_classes: int) -> None:
        self.register_buffer("recent", torch.zeros(QUEUE, num_classes))
        self.register_buffer("sure_share", torch.tensor(-1.0))  # negative: nothing seen yet
        self.auxiliary = auxiliary_head(self.model.backbone.num_features, num_classes)

    def trained(self) -> Iterable[nn.Module]:
        return (self.model, self.auxiliary)

    def on_train_epoch_start(self) -> None:
        if self.reset_each_epoch:
            self.sure_share.fill_(-1)

    def probabilities(self, logits: Tensor) -> Tensor:
        found = logits.softmax(1)
        if not self.alignment:
            return found
        self.recent[self.global_step % QUEUE] = mean_over_ranks(found.mean(0))
        aligned = found / self.recent.mean(0)  # rows of zeros at first are a common factor
        return aligned / aligned.sum(1, keepdim=True)

    def unlabelled_losses(self, probabilities: Tensor, strong: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        sure = probabilities.amax(1) >= self.threshold
        share = mean_over_ranks(sure.float().mean())
        self.sure_share.copy_(share if self.sure_share < 0 else share.lerp(self.sure_share, MOMENTUM))
        losses = sure * -(probabilities * strong.log_softmax(1)).sum(1)
        if not self.shrinking:
            return losses, sure
        further, chosen = shrunk_losses(probabilities, self.auxiliary(features), self.threshold)
        return losses + self.sure_share * further, sure | chosen


def auxiliary_head(num_features: int, num_classes: int) -> nn.Sequential:
    """Three layers, a quarter as wide as the features."""
    width = max(1, num_features // 4)

    def layer(inputs: int) -> list[nn.Module]:
        return [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.LeakyReLU(0.1)]

    return nn.Sequential(*layer(num_features), *layer(width), nn.Linear(width, num_classes))

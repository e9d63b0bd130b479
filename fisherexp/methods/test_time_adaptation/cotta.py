"""CoTTA: learn from a slow teacher's averaged predictions, and restore random weights of the source.

Paper: Wang, Fink, Van Gool, Dai, CVPR 2022, arXiv 2203.13591. With a student θ, its teacher θ' and the source θ₀,

    ŷ = f_θ'(x), or its mean over `views` augmentations of x where the source's mean confidence is below `threshold`
    θ ← one step on  -Σ_c softmax(ŷ)_c log softmax(f_θ(x))_c;    θ' ← 0.999 θ' + 0.001 θ
    θ_j ← θ₀_j with probability `restore`

All parameters adapt; BatchNorm by batch statistics; the teacher answers, with ŷ. Means over augmentations are of
logits, as in the official code.

Where that differs from our results: what is not called weight or bias, such as the positions of a transformer, neither
adapts nor is restored (parameters=weights_and_biases), and for ImageNet the loss is the mean of both directions of
cross-entropy (loss=symmetric). It runs in training mode; here dropout is off.
"""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, Probability
from fisherexp.methods.test_time_adaptation.adaptation import Adaptation
from fisherexp.methods.test_time_adaptation.norms import use_batch_statistics
from fisherexp.methods.test_time_adaptation.teacher import cross_entropy, follow, reverse_cross_entropy
from fisherexp.methods.test_time_adaptation.update import UpdateRule
from fisherexp.methods.test_time_adaptation.views import jittered


class CoTTA(Adaptation):
    """views, threshold, restore, parameters, loss: see above. momentum: of the teacher.
    flip: views may be mirror images; None: where those mean the same (not digits)."""

    paper = "Wang et al., CVPR 2022, arXiv 2203.13591"
    name = "cotta"

    def __init__(
        self,
        model: nn.Module,
        update: UpdateRule,
        views: Count,
        threshold: Probability,
        momentum: Probability,
        restore: Probability,
        parameters: Literal["all", "weights_and_biases"],
        loss: Literal["cross_entropy", "symmetric"],
        flip: bool | None,
    ) -> None:
        super().__init__(model, update)
        self.views, self.threshold, self.flip = views, threshold, flip
        self.momentum, self.restore = momentum, restore
        self.adapted, self.loss = parameters, loss

    def prepare(self) -> None:
        use_batch_statistics(self.model)
        self.anchor = copy.deepcopy(self.model)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self.adapted == "all" or name.rpartition(".")[2] in ("weight", "bias"))
        self.student = copy.deepcopy(self.model)

    @property
    def learner(self) -> nn.Module:
        return self.student

    def networks(self) -> list[nn.Module]:
        return [self.model, self.student]

    def adapt(self, images: Tensor) -> Tensor:
        answer = self._taught(images)
        student = self.student(images)
        losses = cross_entropy(student, answer)
        if self.loss == "symmetric":
            losses = (losses + reverse_cross_entropy(student, answer)) / 2
        self.tally(forward_samples=len(images), backward_samples=len(images))
        losses.mean().backward()
        self.step()
        follow(self.model, self.student, self.momentum)
        self._restore()
        return answer

    @torch.no_grad()
    def _taught(self, images: Tensor) -> Tensor:
        confidence = self.anchor(images).softmax(1).amax(1).mean()
        self.tally(forward_samples=len(images))
        if confidence >= self.threshold:
            return self.predict(images)
        views = (jittered(images, self.generator, flip=self.mirrors(self.flip)) for _ in range(self.views))
        return torch.stack([self.predict(view) for view in views]).mean(0)

    @torch.no_grad()
    def _restore(self) -> None:
        # The source's own values: those of the anchor, whose parameters never change.
        for p, origin in zip(self.student.parameters(), self.anchor.parameters(), strict=True):
            if not p.requires_grad:
                continue
            again = torch.rand(p.shape, generator=self.generator) < self.restore
            p.copy_(torch.where(again.to(p.device), origin, p))

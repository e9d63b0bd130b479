"""CoTTA: learn from a slow teacher's averaged predictions, and restore random weights of the source.

Paper: Wang, Fink, Van Gool, Dai, CVPR 2022, arXiv 2203.13591. With a student θ, its teacher θ' and the source θ₀,

    ŷ = f_θ'(x), or its mean over `views` augmentations of x where the source's mean confidence is below `threshold`
    θ ← one step on  -Σ_c softmax(ŷ)_c log softmax(f_θ(x))_c;    θ' ← 0.999 θ' + 0.001 θ
    θ_j ← θ₀_j with probability `restore`

All parameters adapt; BatchNorm by batch statistics; the teacher answers, with ŷ. Means over augmentations are of
logits, as in the official code. Its ImageNet variant has a symmetric loss, not offered here.
"""

import copy

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, Probability
from fisherexp.methods.test_time_adaptation.adaptation import Adaptation
from fisherexp.methods.test_time_adaptation.norms import use_batch_statistics
from fisherexp.methods.test_time_adaptation.teacher import cross_entropy, follow
from fisherexp.methods.test_time_adaptation.update import UpdateRule
from fisherexp.methods.test_time_adaptation.views import jittered


class CoTTA(Adaptation):
    """views, threshold, restore: see above. momentum: of the teacher.
    flip: views may be mirror images; not where those mean something else (digits)."""

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
        flip: bool,
    ) -> None:
        super().__init__(model, update)
        self.views, self.threshold, self.flip = views, threshold, flip
        self.momentum, self.restore = momentum, restore

    def prepare(self) -> None:
        use_batch_statistics(self.model)
        self.anchor = copy.deepcopy(self.model)
        self.model.requires_grad_(True)
        self.student = copy.deepcopy(self.model)

    @property
    def learner(self) -> nn.Module:
        return self.student

    def networks(self) -> list[nn.Module]:
        return [self.model, self.student]

    def adapt(self, images: Tensor) -> Tensor:
        answer = self._taught(images)
        loss = cross_entropy(self.student(images), answer).mean()
        self.tally(forward_samples=len(images), backward_samples=len(images))
        loss.backward()
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
        views = (jittered(images, self.generator, flip=self.flip) for _ in range(self.views))
        return torch.stack([self.predict(view) for view in views]).mean(0)

    @torch.no_grad()
    def _restore(self) -> None:
        # The source's own values: those of the anchor, whose parameters never change.
        for p, origin in zip(self.student.parameters(), self.anchor.parameters(), strict=True):
            again = torch.rand(p.shape, generator=self.generator) < self.restore
            p.copy_(torch.where(again.to(p.device), origin, p))

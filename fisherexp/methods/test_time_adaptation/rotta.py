"""RoTTA: for streams whose labels come in runs; slow batch statistics, a balanced memory, a slow teacher.

Paper: Yuan, Xie, Li, CVPR 2023, arXiv 2303.13899. BatchNorm uses and keeps (1 - α) stored + α batch. Images enter a
memory (memory.py) with the teacher's prediction. Every `interval` images, one step on the memory M,

    mean_M  w(age) · -Σ_c softmax(f_θ'(x))_c log softmax(f_θ(x̃))_c,    w(a) = exp(-a) / (1 + exp(-a)),

x̃ an augmented view, a the age over the capacity, after which the teacher follows, θ' ← (1 - ν) θ' + ν θ. The teacher
answers, by its stored statistics. Here LayerNorm and GroupNorm adapt, too; and only BatchNorm enters training mode
for a step (the official code also switches dropout on).
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative, Probability
from fisherexp.methods.test_time_adaptation.adaptation import Adaptation
from fisherexp.methods.test_time_adaptation.entropy import entropy, log_softmax
from fisherexp.methods.test_time_adaptation.memory import BalancedMemory
from fisherexp.methods.test_time_adaptation.norms import affine_parameters, mix_statistics, set_mixing
from fisherexp.methods.test_time_adaptation.teacher import cross_entropy, follow
from fisherexp.methods.test_time_adaptation.update import UpdateRule
from fisherexp.methods.test_time_adaptation.views import jittered


def timeliness(ages: Tensor) -> Tensor:
    """exp(-a) / (1 + exp(-a)), between 1/2 for a new image and 0."""
    return torch.sigmoid(-ages)


class RoTTA(Adaptation):
    """alpha, nu, interval: see above. capacity: of the memory. by_age, by_entropy: λ_t, λ_u of its score.
    flip: views may be mirror images; None: where those mean the same (not digits)."""

    paper = "Yuan et al., CVPR 2023, arXiv 2303.13899"
    name = "rotta"

    def __init__(
        self,
        model: nn.Module,
        update: UpdateRule,
        alpha: Probability,
        nu: Probability,
        capacity: Count,
        interval: Count,
        by_age: NonNegative,
        by_entropy: NonNegative,
        flip: bool | None,
    ) -> None:
        super().__init__(model, update)
        self.alpha, self.nu, self.flip = alpha, nu, flip
        self.capacity, self.interval, self.by_age, self.by_entropy = capacity, interval, by_age, by_entropy

    def prepare(self) -> None:
        """Raises ValueError for a model without normalization layers."""
        if not affine_parameters(self.model):
            raise ValueError(
                "rotta adapts normalization layers and this model has none: take one with some, or "
                "method=lame, shot_im, cotta, memo"
            )
        mix_statistics(self.model, self.alpha, remember=True)
        set_mixing(self.model, False)
        for parameter in affine_parameters(self.model).values():
            parameter.requires_grad_(True)
        self.student = copy.deepcopy(self.model)

    @property
    def learner(self) -> nn.Module:
        return self.student

    def networks(self) -> list[nn.Module]:
        return [self.model, self.student]

    def blank(self) -> dict[str, Any]:
        classes = max(2, self.model.head.out_features)  # a single output is of two
        return {"memory": BalancedMemory(self.capacity, classes, self.by_age, self.by_entropy), "seen": 0}

    def adapt(self, images: Tensor) -> Tensor:
        logits = self.predict(images)
        log_p = log_softmax(logits)
        entropies, labels = entropy(log_p).tolist(), log_p.argmax(1).tolist()
        for image, label, uncertainty in zip(images, labels, entropies, strict=True):
            self.state["memory"].add(image, label, uncertainty)
            self.state["seen"] += 1
            if self.state["seen"] % self.interval == 0:
                self._learn()
        return logits

    def _learn(self) -> None:
        images, ages = self.state["memory"].batch()
        for network in self.networks():
            set_mixing(network, True)
        wanted = self.predict(images)
        answer = self.student(jittered(images, self.generator, flip=self.mirrors(self.flip)))
        self.tally(forward_samples=len(images), backward_samples=len(images))
        (timeliness(ages.to(answer)) * cross_entropy(answer, wanted)).mean().backward()
        self.step()
        follow(self.model, self.student, 1 - self.nu)
        for network in self.networks():
            set_mixing(network, False)

    def plain_state(self) -> dict[str, Any]:
        return {"memory": self.state["memory"].plain(), "seen": self.state["seen"]}

"""SAR: sharpness-aware entropy minimization on reliable samples, with recovery from collapse.

Paper: Niu, Wu, Zhang, Wen, Chen, Zhao, Tan, ICLR 2023, arXiv 2302.12400. Over R = { i : H_i(θ) < E₀ },

    ε = ρ g / ||g||,  g = ∇ mean_R H_i(θ);    θ ← θ - η ∇ mean H_i(θ + ε)  over  { i ∈ R : H_i(θ + ε) < E₀ }
    e ← 0.9 e + 0.1 of that second loss;      e < e_m: back to the source model

The last stage of a network stays as it is. Where the official code differs from the paper, and so from our results:

    recovery=official   the e that called for recovery goes on, and calls again on the next batches, until it has grown;
                        the momentum goes on, too (its e_m is 0.2 whatever is set)
    step_on=every_batch a batch without reliable samples steps along a gradient of zeros, so momentum moves the weights

It skips layers by parts of their names, `norm` as a whole name only: that of a ViT, not Swin's downsample.norm.
"""

import logging
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import NonNegative
from fisherexp.methods.test_time_adaptation.adaptation import Adaptation
from fisherexp.methods.test_time_adaptation.entropy import entropy, entropy_gradient, log_softmax
from fisherexp.methods.test_time_adaptation.norms import affine_parameters
from fisherexp.methods.test_time_adaptation.update import UpdateRule

MOMENTUM = 0.9

log = logging.getLogger(__name__)


class SAR(Adaptation):
    """e_margin: E₀ as a share of ln C. rho: radius of the ascent. e_reset: e_m, in nats.
    recovery, step_on: see above. skip: layers that do not adapt, by runs of whole parts of their dotted names."""

    paper = "Niu et al., ICLR 2023, arXiv 2302.12400"

    def __init__(
        self,
        model: nn.Module,
        update: UpdateRule,
        e_margin: NonNegative,
        rho: NonNegative,
        e_reset: NonNegative,
        recovery: Literal["everything", "official"],
        step_on: Literal["reliable", "every_batch"],
        skip: list[str],
    ) -> None:
        super().__init__(model, update)
        self.e_margin, self.rho, self.e_reset = e_margin, rho, e_reset
        self.recovery, self.step_on, self.skip = recovery, step_on, skip

    def prepare(self) -> None:
        self.adapt_norms(self.skip)
        if self.skip and len(affine_parameters(self.model, self.skip)) == len(affine_parameters(self.model)):
            log.warning(
                "SAR leaves a network's last stage as it is, and method.skip names no normalization layer of this one: "
                "all of them adapt. Name that stage's layers in method.skip, or say method.skip=[]"
            )

    def blank(self) -> dict[str, Any]:
        return {"average": None}

    def adapt(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        self.tally(forward_samples=len(images))
        reliable, loss = self._ascendable(logits), None
        if self._gradient(logits, reliable) is not None:
            loss = self._gradient_above(images, reliable)
        if loss is None and self.step_on == "every_batch":
            for p in self._moving():
                p.grad = torch.zeros_like(p)
        if loss is not None or self.step_on == "every_batch":
            self.step()
        self._watch(loss)
        return logits

    def _gradient_above(self, images: Tensor, reliable: Tensor) -> float | None:
        """Climb along the gradient that is there, leave that of the second loss, and come back; None as there."""
        moving = self._moving()
        before = [p.detach().clone() for p in moving]
        norm = torch.stack([p.grad.norm() for p in moving]).norm()
        with torch.no_grad():
            for p in moving:
                p.add_(p.grad * (self.rho / (norm + 1e-12)))
        self.optimizer.zero_grad()
        second = self.model(images)
        self.tally(forward_samples=len(images))
        loss = self._gradient(second, reliable & self._ascendable(second))
        with torch.no_grad():
            for p, value in zip(moving, before, strict=True):
                p.copy_(value)
        return loss

    def _moving(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def _ascendable(self, logits: Tensor) -> Tensor:
        return entropy(log_softmax(logits.detach())) < self.e_margin * math.log(logits.shape[1])

    def _gradient(self, logits: Tensor, chosen: Tensor) -> float | None:
        """Leave the gradient of the mean entropy of `chosen` (B,) in the parameters and return it; None for none."""
        n = int(chosen.sum())
        if not n:
            return None
        self.tally(backward_samples=n)
        log_p = log_softmax(logits.detach())
        logits.backward(entropy_gradient(log_p, chosen / n).to(logits.dtype))
        return entropy(log_p)[chosen].mean().item()

    def _watch(self, loss: float | None) -> None:
        average = self.state["average"]
        if loss is not None:
            average = loss if average is None else MOMENTUM * average + (1 - MOMENTUM) * loss
        self.state["average"] = average
        if average is not None and average < self.e_reset:
            optimizer = self.optimizer
            self.restart()
            self.tally(recoveries=1)
            if self.recovery == "official":
                self.state["average"], self.optimizer = average, optimizer

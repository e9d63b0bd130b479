"""SAR: sharpness-aware entropy minimization on reliable samples, with recovery from collapse.

Paper: Niu, Wu, Zhang, Wen, Chen, Zhao, Tan, ICLR 2023, arXiv 2302.12400. Over R = { i : H_i(θ) < E₀ },

    ε = ρ g / ||g||,  g = ∇ mean_R H_i(θ);    θ ← θ - η ∇ mean H_i(θ + ε)  over  { i ∈ R : H_i(θ + ε) < E₀ }
    e ← 0.9 e + 0.1 of that second loss;      e < e_m: back to the source model

The last stage of a network stays as it is. Where the official code differs: it goes on with the e that called for
recovery, and so recovers again on the next batches, until e has grown: recovery=official.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import NonNegative
from fisherexp.methods.test_time_adaptation.adaptation import Adaptation
from fisherexp.methods.test_time_adaptation.entropy import entropy, entropy_gradient, log_softmax
from fisherexp.methods.test_time_adaptation.update import UpdateRule

MOMENTUM = 0.9


class SAR(Adaptation):
    """e_margin: E₀ as a share of ln C. rho: radius of the ascent. e_reset: e_m, in nats.
    skip: layers that do not adapt, by part of their name."""

    paper = "Niu et al., ICLR 2023, arXiv 2302.12400"

    def __init__(
        self,
        model: nn.Module,
        update: UpdateRule,
        e_margin: NonNegative,
        rho: NonNegative,
        e_reset: NonNegative,
        recovery: Literal["everything", "official"],
        skip: list[str],
    ) -> None:
        super().__init__(model, update)
        self.e_margin, self.rho, self.e_reset = e_margin, rho, e_reset
        self.recovery, self.skip = recovery, skip

    def prepare(self) -> None:
        self.adapt_norms(self.skip)

    def blank(self) -> dict[str, Any]:
        return {"average": None}

    def adapt(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        self.tally(forward_samples=len(images))
        reliable = self._ascendable(logits)
        if self._gradient(logits, reliable) is None:
            return logits
        moving = [p for p in self.model.parameters() if p.requires_grad]
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
        if loss is not None:
            self.step()
            self._watch(loss)
        return logits

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

    def _watch(self, loss: float) -> None:
        average = self.state["average"]
        self.state["average"] = average = loss if average is None else MOMENTUM * average + (1 - MOMENTUM) * loss
        if average < self.e_reset:
            self.restart()
            self.tally(recoveries=1)
            if self.recovery == "official":
                self.state["average"] = average

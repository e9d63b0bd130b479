"""ETA: EATA without its anchor. Entropy minimization on samples that are reliable and not redundant.

Paper: Niu, Wu, Zhang, Chen, Zheng, Zhao, Tan, ICML 2022, arXiv 2204.02610. With p_i the prediction, H_i its entropy,
m the running mean prediction of kept samples, E₀ = e_margin · ln C,

    reliable   R = { i : H_i < E₀ }
    kept       K = { i ∈ R : cos(m, p_i) < d_margin },  all of R while there is no m
    m ← 0.9 m + 0.1 mean_K p_i
    L = (1/|K|) Σ_K exp(E₀ - H_i) H_i,  the weights constant;  no step where K is empty

Where the official code differs from the paper, and what gives its numbers:
- reset leaves m as it was: reset=official. Here a reset forgets it.
- the loss is a mean over the kept samples, so that a single kept one makes a full step: over=kept, the default;
  over=batch divides by B.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import NonNegative
from fisherexp.methods.test_time_adaptation.entropy import entropy
from fisherexp.methods.test_time_adaptation.tent import Tent
from fisherexp.methods.test_time_adaptation.update import UpdateRule

MOMENTUM = 0.9


def kept(log_p: Tensor, mean: Tensor | None, e_margin: float, d_margin: float) -> tuple[Tensor, Tensor]:
    """Masks (B,) of reliable samples, and of those among them that are not redundant.

    log_p: (B, C). mean: running mean prediction (C,), or None. e_margin: E₀ in nats.
    """
    reliable = entropy(log_p) < e_margin
    if mean is None:
        return reliable, reliable
    return reliable, reliable & (F.cosine_similarity(mean[None], log_p.exp(), dim=1) < d_margin)


class ETA(Tent):
    """e_margin: E₀ as a share of ln C, the largest entropy there is. d_margin: see above.
    reweight: by exp(E₀ - H_i). over, reset: see above."""

    paper = "Niu et al., ICML 2022, arXiv 2204.02610"
    search = {
        "e_margin": "interval(0.2, 0.6)",
        "d_margin": "tag(log, interval(0.02, 0.6))",
        "update.lr": "tag(log, interval(1e-5, 1e-2))",
    }
    # ImageNet-C, severity 5, ResNet-50: README of the official EATA code; the mean is that of its figures.
    published = {
        "imagenet/reset_each_shift": {
            "mean_error": (51.9,),
            "error/gaussian_noise": (64.9,),
            "error/shot_noise": (62.1,),
            "error/impulse_noise": (63.4,),
            "error/defocus_blur": (66.1,),
            "error/glass_blur": (67.1,),
            "error/motion_blur": (52.2,),
            "error/zoom_blur": (47.4,),
            "error/snow": (48.1,),
            "error/frost": (54.2,),
            "error/fog": (39.9,),
            "error/brightness": (32.1,),
            "error/contrast": (55.0,),
            "error/elastic_transform": (42.1,),
            "error/pixelate": (39.1,),
            "error/jpeg_compression": (45.1,),
        },
    }

    def __init__(
        self,
        model: nn.Module,
        update: UpdateRule,
        e_margin: NonNegative,
        d_margin: NonNegative,
        reweight: bool,
        over: Literal["kept", "batch"],
        reset: Literal["everything", "official"],
    ) -> None:
        super().__init__(model, update)
        self.e_margin, self.d_margin, self.reweight = e_margin, d_margin, reweight
        self.over, self.reset = over, reset

    def blank(self) -> dict[str, Any]:
        return {"mean_prediction": None}

    def restart(self) -> None:
        before = self.state
        super().restart()
        if self.reset == "official" and before:
            self.state = before

    def weigh(self, log_p: Tensor) -> Tensor | None:
        mean, e_margin = self.state["mean_prediction"], self.e_margin * math.log(log_p.shape[1])
        reliable, chosen = kept(log_p, mean, e_margin, self.d_margin)
        n1, n2 = torch.stack([reliable.sum(), chosen.sum()]).tolist()
        self.tally(reliable=n1, kept=n2, backward_samples=n2)
        if not n2:
            return None
        new = log_p[chosen].exp().mean(0)
        self.state["mean_prediction"] = new if mean is None else MOMENTUM * mean + (1 - MOMENTUM) * new
        weights = (e_margin - entropy(log_p)).exp() if self.reweight else torch.ones_like(log_p[:, 0])
        return torch.where(chosen, weights, 0.0) / (n2 if self.over == "kept" else len(log_p))

    def summary(self) -> dict[str, Any]:
        """With the shares of reliable and of kept samples among those that it could adapt on."""
        found = super().summary()
        met = sum(c["samples"] for c, s in zip(self.counts, self.setting.segments, strict=True) if s.adapt)
        for name in ("reliable", "kept"):
            found[f"{name}_share"] = found.get(name, 0) / max(1, met)
        return found

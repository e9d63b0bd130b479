"""ROID: certain and diverse samples count more, weights stay near the source's, predictions follow the class prior.

Paper: Marsden, Döbler, Yang, WACV 2024, arXiv 2306.00650; equations as in the authors' code. With predictions p_i,
m the running mean prediction, a hat for "scaled to [0, 1] over the batch",

    d_i = hat(1 - cos(m, p_i)),  c_i = hat(-H_i),   w_i = exp(d_i c_i / τ) where d_i >= mean d, else 0
    SLR_i = -Σ_c p_ic log(p_ic / (1 - p_ic) + 1e-5),  p clipped at 0.99
    L = (1/B) Σ_i w_i [ SLR_i + SCE(p_i, p̃_i) ],   SCE(p, q) = -½ Σ_c (p_c log q_c + q_c log p_c),  p̃ of a view
    after the step:  θ ← 0.99 θ + 0.01 θ₀;     m ← 0.9 m + 0.1 mean p
    the answer is z ∘ (p̄ + s) / (1 + s C),     p̄ = mean p,  s = max(1/B, 1/C) / max p̄

The authors' code multiplies logits z by the smoothed prior (prior_correction=logits); to multiply probabilities, which
is Bayes' rule, prior_correction=probabilities. Where all samples of a batch are alike, hats are 0 and all count.

Where the authors' code differs from our results, B of the loss is the configured batch size, also for a smaller last
batch, and 1 for windows of single images (over=batch_size); and an answer without an update, as of a window that waits,
is not corrected (correct=updates).
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import Positive, Probability
from fisherexp.methods.test_time_adaptation.adaptation import Adaptation
from fisherexp.methods.test_time_adaptation.entropy import entropy, log_softmax
from fisherexp.methods.test_time_adaptation.update import UpdateRule
from fisherexp.methods.test_time_adaptation.views import jittered

CLIP, TINY = 0.99, 1e-5


def soft_likelihood_ratio(p: Tensor) -> Tensor:
    """SLR (B,) of probabilities (B, C)."""
    p = p.clamp(max=CLIP)
    return -(p * (p / (1 - p) + TINY).log()).sum(1)


def symmetric_cross_entropy(one: Tensor, other: Tensor) -> Tensor:
    """SCE (B,) of log-probabilities (B, C)."""
    return -0.5 * (one.exp() * other + other.exp() * one).sum(1)


def sample_weights(log_p: Tensor, mean: Tensor, temperature: float) -> Tensor:
    """w (B,) of log-probabilities (B, C) and the running mean prediction (C,)."""
    diverse = _scaled(1 - F.cosine_similarity(mean[None], log_p.exp(), dim=1))
    certain = _scaled(-entropy(log_p))
    return torch.where(diverse < diverse.mean(), 0.0, (diverse * certain / temperature).exp())


def smoothed_prior(log_p: Tensor) -> Tensor:
    """Class frequencies (C,) in a batch of log-probabilities (B, C), smoothed the more, the smaller it is."""
    size, classes = log_p.shape
    prior = log_p.exp().mean(0)
    smooth = max(1 / size, 1 / classes) / prior.max()
    return (prior + smooth) / (1 + smooth * classes)


def _scaled(values: Tensor) -> Tensor:
    span = values.max() - values.min()
    return (values - values.min()) / span.clamp_min(torch.finfo(values.dtype).tiny)


class ROID(Adaptation):
    """temperature: τ. ensembling: share of the adapted weights after a step. momentum: of m.
    consistency: with a view of each image. prior_correction, correct, over: see above.
    flip: views may be mirror images; None: where those mean the same (not digits)."""

    paper = "Marsden et al., WACV 2024, arXiv 2306.00650"

    def __init__(
        self,
        model: nn.Module,
        update: UpdateRule,
        temperature: Positive,
        ensembling: Probability,
        momentum: Probability,
        consistency: bool,
        prior_correction: Literal["logits", "probabilities", "none"],
        correct: Literal["every_answer", "updates"],
        over: Literal["batch", "batch_size"],
        flip: bool | None,
    ) -> None:
        super().__init__(model, update)
        self.temperature, self.ensembling, self.momentum = temperature, ensembling, momentum
        self.consistency, self.prior_correction, self.flip = consistency, prior_correction, flip
        self.correct, self.over = correct, over

    def prepare(self) -> None:
        self.adapt_norms()

    def blank(self) -> dict[str, Any]:
        return {"mean_prediction": None}  # until the first batch: all classes alike

    def adapt(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        self.tally(forward_samples=len(images))
        log_p, mean = log_softmax(logits), self.state["mean_prediction"]
        if mean is None:
            mean = torch.full_like(log_p[0].detach(), 1 / log_p.shape[1])
        weights = sample_weights(log_p.detach(), mean, self.temperature)
        self.state["mean_prediction"] = torch.lerp(log_p.detach().exp().mean(0), mean, self.momentum)
        chosen = weights > 0
        loss = (weights * soft_likelihood_ratio(log_p.exp())).sum()
        if self.consistency and int(chosen.sum()) > 1:  # a single view has no batch statistics
            view = self.model(jittered(images[chosen], self.generator, blur=False, flip=self.mirrors(self.flip)))
            loss = loss + (weights[chosen] * symmetric_cross_entropy(log_softmax(view), log_p[chosen])).sum()
            self.tally(forward_samples=len(view))
        (loss / self._divisor(images)).backward()
        self.tally(backward_samples=int(chosen.sum()))
        self.step()
        with torch.no_grad():
            for p, origin in zip((p for p in self.model.parameters() if p.requires_grad), self.origin, strict=True):
                p.lerp_(origin.to(p), 1 - self.ensembling)  # the trainer may have changed the precision since
        return self._corrected(logits.detach())

    def predict(self, images: Tensor) -> Tensor:
        logits = super().predict(images)
        return self._corrected(logits) if self.correct == "every_answer" else logits

    def _divisor(self, images: Tensor) -> int:
        if self.over == "batch":
            return len(images)
        return self.setting.stream_batch_size or self.setting.data.eval_batch_size

    def _corrected(self, logits: Tensor) -> Tensor:
        log_p = log_softmax(logits)
        if self.prior_correction == "logits":
            return logits * smoothed_prior(log_p)
        return log_p + smoothed_prior(log_p).log() if self.prior_correction == "probabilities" else logits

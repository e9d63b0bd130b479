"""Likelihoods of sequences of tokens."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .likelihood import (
    IGNORED,
    Likelihood,
    check_classes,
    counted_classes,
    ignored,
    scaled,
    softmax_factors,
    true_label_gradient,
)


class Sequence(Likelihood):
    """Language modeling with one sample per sequence: ℓ_n = mean over its tokens of the cross-entropy.

    outputs (N, T, V), targets (N, T); target -100 is not counted, nor is a sequence of nothing else; weights (N,) or,
    per token, (N, T).
    """

    name = "sequence"

    def check(self, outputs, targets):
        if outputs.dim() != 3 or (targets is not None and targets.shape != outputs.shape[:2]):
            shape = None if targets is None else tuple(targets.shape)
            raise ValueError(
                f"{self.name} expects outputs (N, T, V) and targets (N, T), got {tuple(outputs.shape)} and {shape}"
            )
        if targets is not None:
            check_classes(self.name, targets, outputs.shape[:2], outputs.shape[2])

    def kept(self, targets, labels):
        if targets is None or targets.dim() != 2:
            return None
        counts = (~ignored(targets)).any(1)
        return None if counts.all() else counts

    def token_weights(self, outputs: Tensor, targets: Tensor | None, weights: Tensor | None) -> Tensor:
        """(N, T): zero where the target is ignored."""
        w = torch.ones(outputs.shape[:2], dtype=outputs.dtype, device=outputs.device)
        if weights is not None and weights.dim() == 2:
            w = weights.to(w.dtype)
        return w if targets is None else w * ~ignored(targets)

    def shares(self, outputs, targets, weights) -> Tensor:
        """Weight of each token in its sequence's mean."""
        w = self.token_weights(outputs, targets, weights)
        return w / w.sum(1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)

    def losses(self, outputs, targets, weights=None):
        each = F.cross_entropy(outputs.mT, targets.long(), reduction="none", ignore_index=IGNORED)
        return (each * self.shares(outputs, targets, weights)).sum(1)

    def draw(self, outputs, labels, generator):
        if labels == "pseudo":
            return outputs.argmax(-1)
        p = outputs.softmax(-1).flatten(0, 1)
        return torch.multinomial(p, 1, generator=generator).reshape(outputs.shape[:2])

    def seeds(self, outputs, targets, labels, weights, generator):
        share = self.shares(outputs, targets, weights)
        sample_weights = weights if weights is not None and weights.dim() == 1 else None
        if labels == "expected":
            for s in softmax_factors(outputs):  # tokens are independent given the inputs: one at a time
                for t in range(outputs.shape[1]):
                    one = torch.zeros_like(s)
                    one[:, t] = s[:, t] * share[:, t, None]
                    yield scaled(one, sample_weights)
            return
        y = counted_classes(targets) if labels == "empirical" else self.draw(outputs, labels, generator)
        yield scaled(true_label_gradient(self.name, outputs, y).mul_(share.unsqueeze(-1)), sample_weights)

    def count(self, outputs, targets, weights):
        return super().count(outputs, targets, weights if weights is not None and weights.dim() == 1 else None)


class Token(Sequence):
    """Language modeling with one sample per token: F = mean over tokens of the squared token gradient.

    Shapes as `Sequence`. Tokens share the network's activations, so each position is one backward pass.
    """

    name = "token"

    def mean(self, outputs, targets, weights):
        each = F.cross_entropy(outputs.mT, targets.long(), reduction="none", ignore_index=IGNORED)
        w = self.all_weights(outputs, targets, weights)
        return (each * w).sum() / w.sum()

    def all_weights(self, outputs, targets, weights) -> Tensor:
        """(N, T) weight of each token as a sample."""
        w = self.token_weights(outputs, targets, weights)
        return w if weights is None or weights.dim() == 2 else w * weights.to(w.dtype).unsqueeze(1)

    def seeds(self, outputs, targets, labels, weights, generator):
        root = self.all_weights(outputs, targets, weights).sqrt().unsqueeze(-1)
        if labels == "expected":
            gradients = softmax_factors(outputs)
        else:
            y = counted_classes(targets) if labels == "empirical" else self.draw(outputs, labels, generator)
            gradients = iter([true_label_gradient(self.name, outputs, y)])
        for s in gradients:
            for t in range(outputs.shape[1]):
                one = torch.zeros_like(s)
                one[:, t] = s[:, t] * root[:, t]
                yield one

    def count(self, outputs, targets, weights):
        return self.all_weights(outputs, targets, weights).sum().item()

"""What a step sees of one domain, and how far domains are apart."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.curvature.head_gradients import Head
from fisherexp.ranks import joined_over_ranks

Over = Literal["sum", "mean"]


class Domain(NamedTuple):
    """features (n, d) that the head sees, logits it gives: (n, C), or (n, 1) of a binary head; labels (n,)."""

    features: Tensor
    logits: Tensor
    labels: Tensor

    @property
    def head(self) -> Head:
        """A single logit is that of a sigmoid."""
        return "binary" if self.logits.shape[1] == 1 else "softmax"

    def loss(self) -> Tensor:
        """Mean cross-entropy, a scalar."""
        if self.head == "binary":
            return F.binary_cross_entropy_with_logits(self.logits[:, 0], self.labels.to(self.logits.dtype))
        return F.cross_entropy(self.logits, self.labels)


def whole(domain: Domain) -> Domain:
    """The domain with the samples that all ranks have of it; unchanged for a single process."""
    return Domain(*map(joined_over_ranks, domain))


def losses(domains: Sequence[Domain]) -> Tensor:
    """The mean loss of each domain, (E,)."""
    return torch.stack([domain.loss() for domain in domains])


def spread(parts: Sequence[Tensor], over: Over = "sum", center: Tensor | None = None, detach: bool = False) -> Tensor:
    """sum_e ||x_e - center||², or its mean over domains, a scalar. parts: one tensor per domain, of one shape.

    center: the mean of the parts where none is given. detach: no gradient goes through the center (the value, and
    with the mean as center the gradient, are the same).
    """
    stacked = torch.stack(list(parts))
    center = stacked.mean(dim=0) if center is None else center
    squared = (stacked - (center.detach() if detach else center)).square().sum()
    return squared if over == "sum" else squared / len(stacked)


def seen(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, d) and outputs (B, C) or (B, 1) of a Classifier's head, from one call of the whole model."""
    kept = []
    handle = model.head.register_forward_pre_hook(lambda head, inputs: kept.append(inputs[0]))
    try:
        logits = model(images)  # not its parts: what a phase costs is counted at the input and output of the model
    finally:
        handle.remove()
    if model.one_logit:  # which the model puts behind a constant
        logits = logits[:, 1:]
    # Penalties square small differences: at least 32 bits, whatever the network computes in.
    return tuple(part.to(torch.promote_types(part.dtype, torch.float32)) for part in (kept[0], logits))

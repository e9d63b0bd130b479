"""Per-sample gradients of a linear head in closed form, without a backward pass.

For logits z = W h + b and cross-entropy, the gradient of one sample's loss is the outer product r (x) h~ with
r = dl/dz = p - y and h~ = (h, 1). Everything below is algebra on the two factors (Fishr, Rame et al. 2022,
arXiv 2109.02934, uses the moments; Goodfellow 2015, arXiv 1510.01799, the norms). Weight and bias travel
together: a head matrix is (C, d + 1) with the bias in its last column, or (C, d) with ``bias=False``.

``head="softmax"``: cross-entropy over C classes. ``head="binary"``: C independent sigmoid outputs, the losses
of one sample summed over outputs; logits may be (n,) for a single output. All functions are differentiable.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from .choices import check_choice

Head = Literal["softmax", "binary"]


def with_bias(features: Tensor, bias: bool = True) -> Tensor:
    """h~ = (h, 1): features (n, d) with a column of ones appended when the head has a bias."""
    return torch.cat([features, features.new_ones(features.shape[0], 1)], dim=1) if bias else features


def check_head(features: Tensor, logits: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """Features (n, d) and logits (n, C), or a ValueError that names what is wrong; (n,) becomes (n, 1)."""
    check_choice("head", head, get_args(Head))
    if logits.ndim == 1 and head == "binary":
        logits = logits[:, None]
    if features.ndim != 2 or logits.ndim != 2 or features.shape[0] != logits.shape[0]:
        shapes = f"{tuple(features.shape)} and {tuple(logits.shape)}"
        raise ValueError(f"expected features (n, d) and logits (n, C) of the same n samples, got {shapes}")
    if features.shape[0] == 0:
        raise ValueError("the head has no samples: a mean over an empty domain is undefined")
    return features, logits


def probabilities(logits: Tensor, head: Head = "softmax") -> tuple[Tensor, Tensor]:
    """The probabilities p (n, C) and their complements 1 - p, both to full relative precision.

    Subtracting from one loses every digit of a confident sample, so the complement of the most probable
    class is summed from the other classes, and a sigmoid's is the sigmoid of minus the logit.
    """
    if head == "binary":
        return logits.sigmoid(), (-logits).sigmoid()
    p = logits.softmax(dim=1)
    top = logits.argmax(dim=1, keepdim=True)
    rest = p.scatter(1, top, 0.0)
    return p, (1 - p).scatter(1, top, rest.sum(dim=1, keepdim=True))


def head_residuals(logits: Tensor, labels: Tensor, head: Head = "softmax") -> Tensor:
    """r = dl/dz = p - y (n, C), per sample and without the 1/n of a mean.

    Args:
        logits: (n, C); (n,) for a binary head with one output.
        labels: softmax: class indices (n,) or probabilities (n, C). Binary: 0/1 or probabilities, shaped like
            the logits.

    Raises:
        ValueError: labels do not fit the logits.
    """
    if logits.ndim == 1 and head == "binary":
        logits = logits[:, None]
    p, complement = probabilities(logits, head)
    y = _as_probabilities(labels, p, head)
    # Equal to p - y, but the true class of a confident sample is -(1 - p) with all its digits.
    return p * (1 - y) - complement * y


def per_sample_head_gradients(
    features: Tensor, logits: Tensor, labels: Tensor, *, head: Head = "softmax", bias: bool = True
) -> Tensor:
    """Every sample's gradient, (n, C, d + 1): r_i (x) h~_i."""
    residuals, inputs = _factors(features, logits, labels, head, bias)
    return residuals[:, :, None] * inputs[:, None, :]


def head_gradient_mean(
    features: Tensor, logits: Tensor, labels: Tensor, *, head: Head = "softmax", bias: bool = True
) -> Tensor:
    """Gradient of the mean loss, (C, d + 1): r^T h~ / n."""
    residuals, inputs = _factors(features, logits, labels, head, bias)
    return residuals.T @ inputs / len(inputs)


def head_gradient_second_moment(
    features: Tensor, logits: Tensor, labels: Tensor, *, head: Head = "softmax", bias: bool = True
) -> Tensor:
    """Mean of the squared per-sample gradients, (C, d + 1): (r*r)^T (h~*h~) / n.

    It is the diagonal of the head's empirical Fisher.
    """
    residuals, inputs = _factors(features, logits, labels, head, bias)
    return residuals.square().T @ inputs.square() / len(inputs)


def head_gradient_variance(
    features: Tensor, logits: Tensor, labels: Tensor, *, head: Head = "softmax", bias: bool = True
) -> Tensor:
    """Biased variance of the per-sample gradients, (C, d + 1): the statistic Fishr matches across domains."""
    residuals, inputs = _factors(features, logits, labels, head, bias)
    mean = residuals.T @ inputs / len(inputs)
    return residuals.square().T @ inputs.square() / len(inputs) - mean.square()


def head_gradient_norms(
    features: Tensor, logits: Tensor, labels: Tensor, *, head: Head = "softmax", bias: bool = True
) -> Tensor:
    """Euclidean norm of every sample's gradient, (n,): ||r_i|| ||h~_i||."""
    residuals, inputs = _factors(features, logits, labels, head, bias)
    return residuals.norm(dim=1) * inputs.norm(dim=1)


def head_gradient_gram(
    features: Tensor, logits: Tensor, labels: Tensor, *, head: Head = "softmax", bias: bool = True
) -> Tensor:
    """Inner products of the per-sample gradients, (n, n): (r_i . r_j)(h~_i . h~_j)."""
    residuals, inputs = _factors(features, logits, labels, head, bias)
    return (residuals @ residuals.T) * (inputs @ inputs.T)


def _factors(features: Tensor, logits: Tensor, labels: Tensor, head: Head, bias: bool) -> tuple[Tensor, Tensor]:
    features, logits = check_head(features, logits, head)
    return head_residuals(logits, labels, head), with_bias(features, bias)


def _as_probabilities(labels: Tensor, p: Tensor, head: Head) -> Tensor:
    """Labels as target probabilities (n, C)."""
    n, classes = p.shape
    if head == "softmax" and labels.shape == (n,) and not labels.is_floating_point():
        if n and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(f"labels must lie in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}")
        return torch.nn.functional.one_hot(labels.long(), classes).to(p.dtype)
    if head == "binary" and labels.shape == (n,):
        labels = labels[:, None]
    if labels.shape != p.shape:
        raise ValueError(f"labels {tuple(labels.shape)} do not fit logits {tuple(p.shape)} of a {head} head")
    return labels.to(p.dtype)

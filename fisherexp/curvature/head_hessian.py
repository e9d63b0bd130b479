"""The Hessian of a linear head's loss in closed form, and distances between the Hessians of two domains.

With h~ = (h, 1) and p the predicted probabilities, the Hessian of the mean cross-entropy over (W, b) is

    H = 1/n sum_i S_i (x) h~_i h~_i^T,     S = diag(p) - p p^T  (softmax),  diag(p (1 - p))  (binary).

It does not depend on the labels. Inner products of two Hessians need only scalars per pair of samples,

    <H_e, H_f> = 1/(n_e n_f) sum_ij <S_i, S_j> (h~_i . h~_j)^2,

so no matrix with (dC)^2 entries is formed. Hessian alignment: Hemati et al. 2023, arXiv 2308.11778, who
estimate these quantities by Hessian-gradient products and Hutchinson probes. Layout of head matrices and the
meaning of ``head`` and ``bias`` as in ``head_gradients``. Everything is differentiable and, because S is
assembled from positive terms only, keeps float32's relative precision on confident predictions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .head_gradients import Head, check_head, probabilities, with_bias
from .lanczos import extreme_eigenpairs

Domain = tuple[Tensor, Tensor]  # features (n, d) and logits (n, C)


def head_hessian_product(
    features: Tensor, logits: Tensor, direction: Tensor, *, head: Head = "softmax", bias: bool = True
) -> Tensor:
    """H G for a head matrix G: [S_i G h~_i] (x) h~_i averaged over samples, (C, d + 1).

    Raises:
        ValueError: ``direction`` is not (C, d + 1), or (C, d) without bias; n of features and logits differ.
    """
    features, logits = check_head(features, logits, head)
    inputs = with_bias(features, bias)
    expected = (logits.shape[1], inputs.shape[1])
    if direction.shape != expected:
        raise ValueError(f"direction must be {expected} (bias={bias}), got {tuple(direction.shape)}")
    u = inputs @ direction.T
    p, complement = probabilities(logits, head)
    if head == "binary":
        su = p * complement * u
    else:
        # S 1 = 0: measuring u from the most probable class leaves only small terms when p is nearly one-hot.
        u = u - u.gather(1, logits.argmax(dim=1, keepdim=True))
        su = p * (u - (p * u).sum(dim=1, keepdim=True))
    return su.T @ inputs / len(inputs)


def head_hessian_diagonal(features: Tensor, logits: Tensor, *, head: Head = "softmax", bias: bool = True) -> Tensor:
    """Exact diagonal of H, (C, d + 1): (p (1 - p))^T (h~*h~) / n; what Hutchinson probes estimate."""
    features, logits = check_head(features, logits, head)
    p, complement = probabilities(logits, head)
    return (p * complement).T @ with_bias(features, bias).square() / len(features)


def frobenius_gram(
    domains: Sequence[Domain], *, head: Head = "softmax", bias: bool = True, centered: bool = False
) -> Tensor:
    """Frobenius inner products (E, E) of the head Hessians of E domains, each (features, logits).

    ``centered`` subtracts the plain mean of the E Hessians first. Two exact routes, the one with fewer
    operations is taken: over pairs of samples, O(N^2 (d + C)) for N samples in all (small batches, wide
    heads), or over pairs of classes, O(N d^2 C^2) (full-batch training of a small head).

    Raises:
        ValueError: no domain, an empty domain, or domains that differ in d or C.
    """
    if len(domains) == 0:
        raise ValueError("at least one domain is needed")
    domains = [check_head(features, logits, head) for features, logits in domains]
    shapes = {(features.shape[1], logits.shape[1]) for features, logits in domains}
    if len(shapes) > 1:
        raise ValueError(f"all domains must share features d and classes C, got (d, C) = {sorted(shapes)}")
    (d, classes), n = shapes.pop(), sum(len(features) for features, _ in domains)
    blocks = classes if head == "binary" else classes * (classes + 1) // 2
    if n * (d + classes) <= blocks * d * d:
        return _gram_over_samples(domains, head, bias, centered)
    return _gram_over_classes(domains, head, bias, centered)


def frobenius_inner(a: Domain, b: Domain, *, head: Head = "softmax", bias: bool = True) -> Tensor:
    """<H_a, H_b>, a scalar; each domain is (features, logits)."""
    return frobenius_gram([a, b], head=head, bias=bias)[0, 1]


def frobenius_distance(a: Domain, b: Domain, *, head: Head = "softmax", bias: bool = True) -> Tensor:
    """||H_a - H_b||_F, a scalar; its gradient at coinciding Hessians is defined as zero."""
    # H_a - mean = (H_a - H_b)/2, and the same with the other sign for b: the penalty is half the square.
    squared = 2 * alignment_penalty([a, b], head=head, bias=bias)
    positive = squared > 0
    return torch.where(positive, squared, 1.0).sqrt() * positive


def alignment_penalty(domains: Sequence[Domain], *, head: Head = "softmax", bias: bool = True) -> Tensor:
    """sum_e ||H_e - mean_f H_f||_F^2, a scalar; one domain gives zero.

    The mean is the plain mean of the domains' Hessians, whatever their sizes; detaching it would change no
    gradient. Rounding is relative to the Hessians themselves, so for domains that agree to the last digits
    of float32 pass float64 tensors.
    """
    return frobenius_gram(domains, head=head, bias=bias, centered=True).diagonal().sum()


def spectral_distance(
    a: Domain,
    b: Domain,
    *,
    head: Head = "softmax",
    bias: bool = True,
    tol: float = 1e-4,
    max_products: int = 200,
    generator: torch.Generator | None = None,
) -> Tensor:
    """||H_a - H_b||_2, a scalar, by Lanczos on closed-form products; bounds the transfer measure.

    Differentiable where the extreme eigenvalue is simple: d|v^T D v| with its unit eigenvector v fixed.
    """

    def difference(direction: Tensor) -> Tensor:
        h_a, h_b = (head_hessian_product(*domain, direction, head=head, bias=bias) for domain in (a, b))
        return h_a - h_b

    features, logits = check_head(*a, head)
    like = features.new_empty(logits.shape[1], features.shape[1] + bias)
    pairs = extreme_eigenpairs(
        difference, like, which="magnitude", tol=tol, max_products=max_products, generator=generator
    )
    (vector,) = pairs.vectors
    return (vector * difference(vector)).sum().abs()


def _domain_weights(domains: Sequence[Domain], centered: bool) -> Tensor:
    """(E, N): row e averages over the samples of domain e, minus the mean of all rows when centered."""
    features = domains[0][0]
    rows = [features.new_full((1, len(h)), 1 / len(h)) for h, _ in domains]
    weights = torch.block_diag(*rows)
    return weights - weights.mean(dim=0) if centered else weights


def _gram_over_samples(domains: Sequence[Domain], head: Head, bias: bool, centered: bool) -> Tensor:
    """The inner products from one (N, N) matrix of pairs of samples."""
    features = torch.cat([h for h, _ in domains])
    logits = torch.cat([z for _, z in domains])
    pairs = (features @ features.T + float(bias)).square() * _output_gram(logits, head)
    weights = _domain_weights(domains, centered)
    return weights @ pairs @ weights.T


def _output_gram(logits: Tensor, head: Head) -> Tensor:
    """<S_i, S_j> for all pairs of samples, (N, N).

    For the softmax, sum_c (p q)_ic (p q)_jc + sum_{c != c'} p_ic p_ic' p_jc p_jc' with q = 1 - p. Split off
    the most probable class k with its probability a, leaving the small rest s (s_k = 0); then the second sum
    has only terms of its own size:  2 [k_i = k_j] a_i a_j s_i.s_j + 2 A_ij A_ji + 2 (s_i.s_j)(A_ij + A_ji)
    + (s_i.s_j)^2 - s_i^2.s_j^2,  where A_ij = a_i s_j[k_i].
    """
    p, complement = probabilities(logits, head)
    variance = p * complement
    gram = variance @ variance.T
    if head == "binary":
        return gram
    top = logits.argmax(dim=1, keepdim=True)
    a, s = p.gather(1, top), p.scatter(1, top, 0.0)
    rest = s @ s.T
    cross = a * s[:, top[:, 0]].T
    same = (top == top.T).to(p.dtype)
    gram = gram + 2 * (same * (a @ a.T) * rest + cross * cross.T + rest * (cross + cross.T))
    return gram + rest.square() - s.square() @ s.square().T


def _gram_over_classes(domains: Sequence[Domain], head: Head, bias: bool, centered: bool) -> Tensor:
    """The inner products summed over the d x d class blocks, one block of every domain at a time."""
    inputs = [with_bias(h, bias) for h, _ in domains]
    predictions = [probabilities(z, head) for _, z in domains]
    classes = domains[0][1].shape[1]
    total = inputs[0].new_zeros(len(domains), len(domains))
    for c in range(classes):
        for other in range(c, classes if head == "softmax" else c + 1):
            blocks = []
            for h, (p, complement) in zip(inputs, predictions, strict=True):
                weight = p[:, c] * (complement[:, c] if other == c else -p[:, other])
                blocks.append(h.T @ (weight[:, None] * h) / len(h))
            stacked = torch.stack(blocks).flatten(1)
            if centered:
                stacked = stacked - stacked.mean(dim=0)
            total = total + (1 if other == c else 2) * (stacked @ stacked.T)
    return total

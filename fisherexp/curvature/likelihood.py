"""Loss functions as negative log-likelihoods of one sample, and the gradients of the outputs they ask for.

Every estimator of the Fisher is a sum over samples of squared gradients Jᵀs, where J is the Jacobian of the
outputs and s a vector in output space: s = ∂ℓ/∂z at the true, predicted or drawn label, or the vectors of any
factorization S Sᵀ of the model's own E[∂ℓ ∂ℓᵀ] for the exact expectation. `seeds` yields those vectors.
Notation: z outputs, p = softmax(z), e_y unit vector; cross-entropy has ∂ℓ/∂z = p - e_y.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

LABELS = ("empirical", "pseudo", "sampled", "expected")
IGNORED = -100  # as torch's losses have it


def cross_entropy_gradient(logits: Tensor, target: Tensor) -> Tensor:
    """∂ℓ/∂z = p - e_y over the last axis; target holds class indices.

    p_y - 1 is written as minus the sum of the other probabilities: for a confident sample the subtraction
    would lose all its digits (relative error 4e-2 instead of 7e-7 in float32 at loss 5e-5).
    """
    target = target.long().unsqueeze(-1)
    p = logits.softmax(-1).scatter_(-1, target, 0)
    return p.scatter_(-1, target, -p.sum(-1, keepdim=True))


def softmax_factors(logits: Tensor) -> Iterator[Tensor]:
    """C-1 vectors s_k, shaped as `logits`, with Σ_k s_k s_kᵀ = diag(p) - p pᵀ (rank C-1).

    s_k = √(p_k r_k / r_{k-1}) (e_k - Σ_{j>k} (p_j / r_k) e_j) with tail sums r_k = Σ_{j>k} p_j: the Cholesky
    factor of a multinomial covariance (Tanabe & Sagae, 1992). One vector fewer than labels.
    """
    p = logits.softmax(-1)
    tail = p.flip(-1).cumsum(-1).flip(-1)  # tail[k] = Σ_{j>=k} p_j = r_{k-1}
    for k in range(p.shape[-1] - 1):
        s = torch.zeros_like(p)
        rest = tail[..., k + 1].clamp_min(torch.finfo(p.dtype).tiny)
        scale = (p[..., k] * rest / tail[..., k].clamp_min(torch.finfo(p.dtype).tiny)).sqrt()
        s[..., k] = scale
        s[..., k + 1 :] = -(scale / rest).unsqueeze(-1) * p[..., k + 1 :]
        yield s


class Likelihood:
    """What a loss must say. `labels` of each estimator; gradients have the outputs' shape, in float32 or wider."""

    labels = LABELS
    name = ""

    def check(self, outputs: Tensor, targets: Tensor | None) -> None:
        """Raise ValueError if outputs and targets do not fit this loss."""

    def kept(self, targets: Tensor | None, labels: str) -> Tensor | None:
        """(N,): the samples that count, where targets ignore some; None where all do."""
        return None

    def losses(self, outputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Per-sample losses (N,), differentiable."""
        raise NotImplementedError

    def mean(self, outputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """The batch's mean loss, weighted over samples: a differentiable scalar."""
        each = self.losses(outputs, targets, weights)
        if weights is None or weights.dim() != 1:
            return each.mean()
        return (each * weights.to(each.dtype)).sum() / weights.sum()

    def draw(self, outputs: Tensor, labels: str, generator: torch.Generator | None) -> Tensor:
        """Labels the model itself would give: `pseudo` the most likely, `sampled` a draw."""
        raise NotImplementedError

    def seeds(
        self,
        outputs: Tensor,
        targets: Tensor | None,
        labels: str,
        weights: Tensor | None,
        generator: torch.Generator | None,
    ) -> Iterator[Tensor]:
        """Vectors s in output space; the Fisher of the batch is the sum of squares over samples and vectors."""
        raise NotImplementedError

    def count(self, outputs: Tensor, targets: Tensor | None, weights: Tensor | None) -> float:
        """What the sum of squares is divided by."""
        return float(outputs.shape[0]) if weights is None else weights.sum().item()


def check_classes(name: str, targets: Tensor, shape: torch.Size, classes: int) -> None:
    """Raise ValueError unless targets are class indices of this shape."""
    if targets.shape != shape:
        raise ValueError(f"targets {tuple(targets.shape)} do not fit: {name} expects class indices {tuple(shape)}")
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(
            f"targets of {name} must be class indices, got {targets.dtype}; convert labels with .long(), and give "
            "one-hot or soft targets of a classifier as floats (N, C)"
        )
    if targets.device.type != "cpu":  # where an index out of range ends the process
        check_range(name, targets, classes)


def check_range(name: str, targets: Tensor, classes: int) -> None:
    """Raise ValueError unless all class indices are below `classes` or -100."""
    if targets.numel():
        low, high = (int(bound) for bound in targets.long().aminmax())
        if high >= classes or (low < 0 and bool(((targets < 0) & ~ignored(targets)).any())):
            raise ValueError(
                f"targets of {name} must lie in 0..{classes - 1}, or be {IGNORED} where they do not count; "
                f"got {low}..{high}"
            )


def ignored(targets: Tensor) -> Tensor:
    """Where targets do not count. Compared as int64: to unsigned integers, -100 would be class 156."""
    return targets.long() == IGNORED


def counted_classes(targets: Tensor) -> Tensor:
    """Targets with some class where they are ignored."""
    return targets.masked_fill(ignored(targets), 0)


def scaled(s: Tensor, weights: Tensor | None) -> Tensor:
    """A sample of weight w counts w times: its gradient is multiplied by √w. Raises ValueError for other weights than
    one for each sample.
    """
    if weights is None:
        return s
    if weights.numel() != len(s):
        raise ValueError(f"weights {tuple(weights.shape)} do not fit {len(s)} samples: this loss takes one for each")
    return s * weights.to(s.dtype).sqrt().reshape(-1, *[1] * (s.dim() - 1))


def true_label_gradient(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """`cross_entropy_gradient`; raises ValueError for targets out of range."""
    try:
        return cross_entropy_gradient(outputs, targets)
    except RuntimeError:
        check_range(name, targets, outputs.shape[-1])
        raise


class Classification(Likelihood):
    """Softmax cross-entropy; outputs (N, C), targets (N,) class indices or (N, C) probabilities, which are floats.

    A sample of target -100 does not count.
    """

    name = "cross_entropy"

    def check(self, outputs, targets):
        if outputs.dim() != 2:
            raise ValueError(
                f"cross_entropy expects outputs (N, C), got {tuple(outputs.shape)}; "
                "for one prediction per position use loss='sequence' or loss='token'."
            )
        if targets is None:
            return
        if not (targets.is_floating_point() and targets.shape == outputs.shape):
            check_classes(self.name, targets, outputs.shape[:1], outputs.shape[1])
        elif (targets < 0).any():
            raise ValueError(f"targets of {self.name} are probabilities, which must not be negative; leave out samples")

    def kept(self, targets, labels):
        if labels != "empirical" or targets is None or targets.dim() != 1 or targets.is_floating_point():
            return None
        return ~ignored(targets) if targets.numel() and int(targets.long().min()) == IGNORED else None

    def losses(self, outputs, targets, weights=None):
        if targets.is_floating_point():
            return F.cross_entropy(outputs, targets.to(outputs.dtype), reduction="none")
        return F.cross_entropy(outputs, targets.long(), reduction="none")

    def draw(self, outputs, labels, generator):
        if labels == "pseudo":
            return outputs.argmax(-1)
        return torch.multinomial(outputs.softmax(-1), 1, generator=generator).squeeze(-1)

    def seeds(self, outputs, targets, labels, weights, generator):
        if labels == "expected":
            for s in softmax_factors(outputs):
                yield scaled(s, weights)
            return
        y = targets if labels == "empirical" else self.draw(outputs, labels, generator)
        if y.is_floating_point():
            y = y.to(outputs.dtype)
            gradient = outputs.softmax(-1) * y.sum(-1, keepdim=True) - y
        else:
            gradient = true_label_gradient(self.name, outputs, y)
        yield scaled(gradient, weights)


class Regression(Likelihood):
    """Gaussian with unit variance, ℓ = ½‖y - f‖²; outputs and targets (N, ...). ∂ℓ/∂f = f - y."""

    name = "gaussian"

    def check(self, outputs, targets):
        if targets is not None and targets.shape != outputs.shape:
            raise ValueError(f"targets {tuple(targets.shape)} must have the shape of outputs {tuple(outputs.shape)}")

    def losses(self, outputs, targets, weights=None):
        return 0.5 * (outputs - targets).square().flatten(1).sum(1)

    def draw(self, outputs, labels, generator):
        if labels == "pseudo":
            raise ValueError("pseudo labels of a Gaussian are its mean, at which every gradient is zero")
        noise = torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype, device=outputs.device)
        return outputs + noise

    def seeds(self, outputs, targets, labels, weights, generator):
        if labels == "expected":  # E[∂ℓ ∂ℓᵀ] = I: one unit vector per output
            for k in range(outputs[0].numel()):
                s = torch.zeros_like(outputs).flatten(1)
                s[:, k] = 1
                yield scaled(s.reshape(outputs.shape), weights)
            return
        y = targets if labels == "empirical" else self.draw(outputs, labels, generator)
        yield scaled(outputs - y.to(outputs.dtype), weights)

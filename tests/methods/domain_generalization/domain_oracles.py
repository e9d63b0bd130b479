"""Domains in float64, and slow truths about their heads by autograd."""

import torch
from torch.nn import functional as F

from fisherexp.methods.domain_generalization.domain import Domain


def problem(head: str = "softmax", sizes=(5, 7, 4), d: int = 6, classes: int = 3, seed: int = 0):
    """Weights (C, d + 1) of a head and the (features, labels) of each domain; everything that can require grad does."""
    drawn = torch.Generator().manual_seed(seed)
    outputs = 1 if head == "binary" else classes
    theta = torch.randn(outputs, d + 1, dtype=torch.float64, generator=drawn).requires_grad_()
    data = []
    for n in sizes:
        features = torch.randn(n, d, dtype=torch.float64, generator=drawn).requires_grad_()
        data.append((features, torch.randint(2 if head == "binary" else classes, (n,), generator=drawn)))
    return theta, data


def logits(theta, features):
    return features @ theta[:, :-1].T + theta[:, -1]


def domains(theta, data) -> list[Domain]:
    return [Domain(h, logits(theta, h), y) for h, y in data]


def loss(theta, features, labels):
    z = logits(theta, features)
    if z.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(z[:, 0], labels.double())
    return F.cross_entropy(z, labels)


def gradient(theta, features, labels):
    return torch.autograd.grad(loss(theta, features, labels), theta, create_graph=True)[0]


def hessian(theta, features, labels):
    """(C (d + 1), C (d + 1)), by autograd."""
    full = torch.autograd.functional.hessian(lambda t: loss(t, features, labels), theta, create_graph=True)
    return full.reshape(theta.numel(), theta.numel())


def hessian_by_rows(theta, features, labels):
    """The same for a theta that is made of parameters: one backward pass a row, which can be differentiated again."""
    g = gradient(theta, features, labels).flatten()
    rows = [torch.autograd.grad(entry, theta, create_graph=True)[0].flatten() for entry in g]
    return torch.stack(rows)


def total_spread(parts, center=None, detach=False):
    center = sum(parts) / len(parts) if center is None else center
    center = center.detach() if detach else center
    return sum(((part - center) ** 2).sum() for part in parts)

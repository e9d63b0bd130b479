"""Vectors over parameters: one flat tensor, or tensors by parameter name."""

from collections.abc import Mapping

import torch
from torch import Tensor

Vector = Tensor | Mapping[str, Tensor]


def ravel(vector: Vector) -> Tensor:
    """Concatenates a tensor, or the tensors of a dict in its order, to one flat tensor."""
    if isinstance(vector, Tensor):
        return vector.reshape(-1)
    return torch.cat([part.reshape(-1) for part in vector.values()])


def unravel(flat: Tensor, like: Vector) -> Vector:
    """Inverse of :func:`ravel`: gives ``flat`` the names and shapes of ``like`` (views, no copy)."""
    if isinstance(like, Tensor):
        return flat.view_as(like)
    parts = flat.split([part.numel() for part in like.values()])
    return {name: part.view_as(like[name]) for name, part in zip(like, parts, strict=True)}


def in_form_of(vector: Vector, named: dict[str, Tensor]) -> Vector:
    """`named` as it is for a vector by name, flat for a flat one."""
    return ravel(named) if isinstance(vector, Tensor) else named

"""Batches in any nesting of tuples, lists and dicts."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


def batch_size(inputs: Any) -> int:
    """Number of samples: the length of the first tensor among the inputs. Raises ValueError if there is none."""
    if isinstance(inputs, Tensor) and inputs.dim():
        return inputs.shape[0]
    for leaf in pytree.tree_leaves(inputs):
        if isinstance(leaf, Tensor) and leaf.dim():
            return leaf.shape[0]
    raise ValueError("the inputs contain no tensor with a batch axis")


def select(inputs: Any, index: Tensor | slice, batch: int) -> Any:
    """The samples `index` of the inputs (a tensor, or any nesting of tuples, lists and dicts)."""

    def rows(leaf):
        return leaf[index] if isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == batch else leaf

    return pytree.tree_map(rows, inputs)


def weighted(inputs: Any, targets: Tensor | None, weights: Tensor, size: int) -> tuple[Any, Tensor | None, Tensor, int]:
    """Inputs, targets and floating weights of the samples of positive weight, and how many these are.

    weights: (N,) or (N, T); whatever is in samples of weight zero is dropped. Raises ValueError for weights that are
    negative or do not fit `size` samples.
    """
    if weights.shape[0] != size:
        raise ValueError(f"weights {tuple(weights.shape)} do not fit a batch of {size} samples")
    if (weights < 0).any():
        raise ValueError("weights must not be negative")
    alive = weights != 0 if weights.dim() == 1 else (weights != 0).flatten(1).any(1)
    if not alive.all():
        inputs, targets, weights = (select(t, alive, size) for t in (inputs, targets, weights))
    return inputs, targets, weights if weights.dtype.is_floating_point else weights.float(), int(alive.sum())


def move(inputs: Any, device: torch.device) -> Any:
    """Inputs on `device`, usable by autograd even if made in inference mode."""

    def one(leaf):
        if not isinstance(leaf, Tensor):
            return leaf
        leaf = leaf.detach().to(device, non_blocking=True)
        return leaf.clone() if leaf.is_inference() else leaf

    if isinstance(inputs, Tensor):  # the usual case, without walking a tree
        return one(inputs)
    return pytree.tree_map(one, inputs)


def outputs_of(model: nn.Module, inputs: Any) -> Tensor:
    """`model(inputs)`: tuples as positional and dicts as keyword arguments; the `logits` of structured outputs."""
    if isinstance(inputs, dict):
        out = model(**inputs)
    elif isinstance(inputs, (tuple, list)):
        out = model(*inputs)
    else:
        out = model(inputs)
    out = getattr(out, "logits", out)
    if not isinstance(out, Tensor):
        raise TypeError(f"the model must return a tensor or an object with `logits`, got {type(out).__name__}")
    return out

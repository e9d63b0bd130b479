"""Batches in any nesting of tuples, lists and dicts, and what of a batch or of a model's result is meant."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .choices import check_choice


def batch_size(inputs: Any) -> int:
    """Number of samples: the length of the first tensor among the inputs. Raises ValueError if there is none."""
    if isinstance(inputs, Tensor) and inputs.dim():
        return inputs.shape[0]
    for leaf in pytree.tree_leaves(_as_dict(inputs)):
        if isinstance(leaf, Tensor) and leaf.dim():
            return leaf.shape[0]
    raise ValueError("the inputs contain no tensor with a batch axis")


def select(inputs: Any, index: Tensor | slice, batch: int) -> Any:
    """The samples `index` of the inputs (a tensor, or any nesting of tuples, lists and dicts)."""

    def rows(leaf):
        return leaf[index] if isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == batch else leaf

    return pytree.tree_map(rows, _as_dict(inputs))


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
    return pytree.tree_map(one, _as_dict(inputs))


def _as_dict(inputs: Any) -> Any:
    """Mappings of other kinds (a tokenizer's encoding) as a plain dict, which can be walked through."""
    return dict(inputs) if isinstance(inputs, Mapping) and not isinstance(inputs, dict) else inputs


def parts_of(
    batch: Any,
    inputs: Sequence[str] | Callable[[Any], Any] | None = None,
    targets: str | Callable[[Any], Any] = "labels",
) -> tuple:
    """Inputs, targets and, where a batch is a tuple of three, weights.

    A tuple is taken as it is. Of a mapping, `targets` names its targets (None where it has none) and `inputs` what the
    model is called with: everything but the targets by default. Either may be a function of the batch instead.
    Raises ValueError for a batch of another kind and for a name that it does not have.
    """
    mapping = isinstance(batch, Mapping)
    if not mapping and not isinstance(batch, (tuple, list)) and not (callable(inputs) and callable(targets)):
        raise ValueError(
            f"a batch must be (inputs, targets[, weights]) or a mapping by name, got {type(batch).__name__}; "
            "else pass functions of a batch, inputs=lambda batch: ..., targets=lambda batch: ..."
        )
    if not mapping and not callable(inputs) and not callable(targets):
        return tuple(batch)
    own = "labels" if callable(targets) else targets
    if callable(inputs):
        given = inputs(batch)
    elif mapping:
        names = [name for name in batch if name != own] if inputs is None else inputs
        given = {check_choice("input", name, batch): batch[name] for name in names}
    else:
        given = batch[0]
    if callable(targets):
        return given, targets(batch)
    if not mapping:
        return given, *batch[1:]
    if targets not in batch and targets != "labels":
        check_choice("targets", targets, batch)
    return given, batch.get(targets)


@contextmanager
def returning(model: nn.Module, outputs: Callable[[Any], Tensor] | None) -> Iterator[None]:
    """While open, a call of `model` returns `outputs(what it returned)`; None changes nothing."""
    if outputs is None:
        yield
        return
    handle = model.register_forward_hook(lambda module, arguments, result: outputs(result))
    try:
        yield
    finally:
        handle.remove()


def outputs_of(model: nn.Module, inputs: Any) -> Tensor:
    """`model(inputs)`: tuples as positional and dicts as keyword arguments; the `logits` of structured outputs."""
    inputs = _as_dict(inputs)
    if isinstance(inputs, dict):
        out = model(**inputs)
    elif isinstance(inputs, (tuple, list)):
        out = model(*inputs)
    else:
        out = model(inputs)
    out = out.get("logits", out) if isinstance(out, dict) else getattr(out, "logits", out)
    if not isinstance(out, Tensor):
        raise TypeError(
            f"the model must return a tensor or something with `logits`, got {type(out).__name__}; "
            "pass outputs=lambda result: ... which takes the tensor out of it"
        )
    return out

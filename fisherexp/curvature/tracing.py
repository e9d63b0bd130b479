"""Finds out where the batch lies in the steps of a forward pass, by forward passes of other sizes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from . import randomness
from .identity import Part
from .inputs import outputs_of, select
from .layout import Layout, Log, layout_of
from .rules import DECOMPOSITIONS


def log_of_part(parameters: Mapping[str, Tensor], part: Part, evaluate: Callable[[], None]) -> Log:
    """What the untouched model does with `part` of a batch, which `evaluate` evaluates and which serves the batch's
    verification too.
    """
    log = Log(DECOMPOSITIONS, len(part.rows))
    with _requiring_gradients(parameters.values()), log:
        evaluate()
    log.alive.clear()  # identities are told apart already
    return log


def views(log: Log) -> bool:
    """Whether a step uses `view`, which refuses tensors laid out otherwise than the network's author had them."""
    return Tensor.view in {call[0] for call in log.calls}


def trace(
    model: nn.Module, parameters: Mapping[str, Tensor], part: Part, first: Log, inputs: Any, batch: int
) -> Layout:
    """Where the batch lies in every step that involves a parameter, from the log of `part` and a forward pass of the
    untouched model on two or three rows.
    """
    device = part.rows.device
    few = 2 if len(part.rows) != 2 else 3
    rows = torch.tensor([*part.rows[:few].tolist(), *range(batch), 0, 0][:few], device=device)
    second = Log(DECOMPOSITIONS, few)
    with _requiring_gradients(parameters.values()), randomness.kept(device), second:
        outputs_of(model, select(inputs, rows, batch))
    return layout_of(first, second, {id(p) for p in parameters.values()})


@contextmanager
def _requiring_gradients(parameters: Iterable[Tensor]) -> Iterator[None]:
    """All floating parameters require gradients: what is computed from frozen ones is followed as well."""
    changed = [p for p in parameters if p.is_floating_point() and not p.requires_grad]
    for p in changed:
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p in changed:
            p.requires_grad_(False)

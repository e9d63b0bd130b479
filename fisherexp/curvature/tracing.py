"""Finds out where the batch lies in the steps of a forward pass, by two forward passes of other sizes."""

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


def trace(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    part: Part,
    evaluate: Callable[[], None],
    inputs: Any,
    batch: int,
) -> tuple[Layout, bool]:
    """Where the batch lies in every step that involves a parameter, from the untouched model on `part` of the batch,
    which `evaluate` evaluates and which serves its verification too, and on two or three rows.

    Also whether no step uses `view`, which refuses tensors laid out otherwise than the network's author had them.
    """
    device = part.rows.device
    few = 2 if len(part.rows) != 2 else 3
    rows = torch.tensor([*part.rows[:few].tolist(), *range(batch), 0, 0][:few], device=device)
    logs = [Log(DECOMPOSITIONS, size) for size in (len(part.rows), few)]
    with _requiring_gradients(parameters.values()):
        with logs[0]:
            evaluate()
        with randomness.kept(device), logs[1]:
            outputs_of(model, select(inputs, rows, batch))
    plain = Tensor.view not in {call[0] for call in logs[0].calls}
    return layout_of(*logs, {id(p) for p in parameters.values()}), plain


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

"""Finds out where the batch lies in the steps of a forward pass, by forward passes of other sizes."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from . import randomness
from .identity import Part
from .inputs import outputs_of, select
from .layout import Layout, Log, layout_of
from .rules import DECOMPOSITIONS


def views(log: Log) -> bool:
    """Whether a step uses `view`, which refuses tensors laid out otherwise than the network's author had them."""
    return Tensor.view in {call[0] for call in log.calls}


def trace(model: nn.Module, parameters: Iterable[Tensor], part: Part, first: Log, inputs: Any, batch: int) -> Layout:
    """Where the batch lies in every step that involves a parameter, from the log of the first piece of `part` and a
    forward pass of the untouched model on two or three rows.
    """
    few, device = 2 if first.batch != 2 else 3, part.rows.device
    rows = torch.tensor([*part.rows[:few].tolist(), *range(batch), 0, 0][:few], device=device)
    second = Log(DECOMPOSITIONS, few)
    with randomness.kept(device), second:
        outputs_of(model, select(inputs, rows, batch))
    return layout_of(first, second, set(map(id, parameters)))

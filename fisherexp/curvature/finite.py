"""Whether numbers are finite, and which layer of a model is the first whose output is not."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .inputs import outputs_of
from .undisturbed import Undisturbed


def finite(tensor: Tensor) -> bool:
    """Whether every entry is finite: the sum tells, except when it overflows."""
    return math.isfinite(tensor.sum().item()) or bool(tensor.isfinite().all())


def first_non_finite(model: nn.Module, inputs: Any) -> str | None:
    """Name of the first module, in order of evaluation, whose output is not finite."""
    found: list[str] = []

    def watch(name):
        def hook(module, given, out):
            if not found and isinstance(out, Tensor) and not out.isfinite().all():
                found.append(name)

        return hook

    hooks = [m.register_forward_hook(watch(n)) for n, m in model.named_modules() if n]
    try:
        with Undisturbed(model), torch.no_grad():
            outputs_of(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return f"the output of layer {found[0]!r}" if found else None

"""Optimizers that keep a window of past gradients as a low-rank Fisher."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.curvature import LowRankFisher


def newest_preconditioned(window: LowRankFisher, gradient: Tensor, damping: float) -> Tensor:
    """(F + damping I)⁻¹ g (d,) with g (d,) already in the window, in the place of the oldest one."""
    newest = torch.zeros(len(window.gradients), dtype=torch.float64, device=gradient.device)
    newest[window.replace_row(gradient)] = 1
    return window.solve_rows(newest, damping)


class WindowedOptimizer(torch.optim.Optimizer):
    """windows: LowRankFisher by number; a part of the state.

    They are no state of a parameter: torch gives that the parameter's precision when it is loaded, and the m×m
    algebra is float64.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], defaults: dict[str, Any]) -> None:
        super().__init__(parameters, defaults)
        self.windows: dict[int, LowRankFisher] = {}

    def state_dict(self) -> dict[str, Any]:
        """torch's, and the windows as plain containers."""
        names = ("gradients", "gram", "divisor", "cursor")
        kept = {number: {name: getattr(window, name) for name in names} for number, window in self.windows.items()}
        return super().state_dict() | {"windows": kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state, on the device of the parameters."""
        super().load_state_dict({name: state_dict[name] for name in ("state", "param_groups")})
        device = self.param_groups[0]["params"][0].device
        self.windows = {}
        for number, saved in state_dict["windows"].items():
            tensors = {name: saved[name].to(device, copy=True) for name in ("gradients", "gram")}
            self.windows[number] = LowRankFisher(**(saved | tensors))

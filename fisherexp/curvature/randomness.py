"""Random numbers that a model draws in eval mode: whether they decide anything; generators left as they were."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree


def state(device: torch.device) -> Tensor:
    """The state of the global generator of `device`, and of the CPU's before it."""
    own = torch.get_rng_state()
    return own if device.type != "cuda" else torch.cat([own, torch.cuda.get_rng_state(device)])


@contextmanager
def kept(device: torch.device) -> Iterator[Callable[[], bool]]:
    """Put the global generators back at the end. Yields a function that tells whether they have moved."""
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    before = state(device)
    try:
        yield lambda: not torch.equal(before, state(device))
    finally:
        if not torch.equal(torch.get_rng_state(), cpu):
            torch.set_rng_state(cpu)
        if cuda is not None and not torch.equal(torch.cuda.get_rng_state(device), cuda):
            torch.cuda.set_rng_state(cuda, device)


class Extreme(TorchFunctionMode):
    """Every function that draws random numbers gives its smallest (0) or a large result (1; integers: reversed)."""

    def __init__(self, large: bool, device: torch.device):
        super().__init__()
        self.large, self.device = large, device

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None):
        before = state(self.device)
        result = func(*args, **(kwargs or {}))
        if torch.equal(before, state(self.device)):
            return result
        return pytree.tree_map_only(Tensor, self._replaced, result)

    def _replaced(self, drawn: Tensor) -> Tensor:
        with torch.no_grad(), torch._C.DisableTorchFunction():
            if drawn.is_floating_point():
                value = torch.full_like(drawn, float(self.large))
            else:
                value = drawn.flip(0) if self.large and drawn.dim() else torch.zeros_like(drawn)
            return drawn.detach().copy_(value) if not drawn.requires_grad else value


def matters(evaluate: Callable[[], Tensor], same: Callable[[Tensor, Tensor], bool], device: torch.device) -> bool:
    """Whether outputs change with the random numbers that `evaluate` draws, however seldom they do."""
    with torch.no_grad():
        plain = evaluate()
        for large in (False, True):
            with Extreme(large, device):
                other = evaluate()
            if not same(other, plain):
                return True
    return False

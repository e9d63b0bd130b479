"""The backward passes of a sweep, one for each seed vector."""

from collections.abc import Iterable

import torch
from torch import Tensor

from .consumer import Consumer
from .tape import Tape
from .verification import Verification

CHECKPOINTING = (
    "gradient checkpointing evaluates layers again in backward, where their parameters cannot be followed; "
    "turn it off while computing curvature"
)


def backward(
    tape: Tape,
    outputs: Tensor,
    starts: tuple[Tensor, ...],
    seeds: Iterable[Tensor],
    consumer: Consumer,
    check: Verification | None,
    keep: bool,
) -> list[Tensor]:
    """Send each seed back from `outputs` to `starts`; the tape hands on what arrives. Returns the seeds if `keep`."""
    passes: list[Tensor] = []
    iterator = iter(seeds)
    seed = next(iterator, None)
    while seed is not None:
        following = next(iterator, None)
        if keep:
            passes.append(seed)
        if check is not None:
            check.add_seed(seed)
        if outputs.requires_grad:
            tape.last = following is None
            with torch._C.DisableTorchFunctionSubclass():
                _run_backward(outputs, seed.to(outputs.dtype), starts, not tape.last)
            consumer.end()
        seed = following
    return passes


def _run_backward(outputs: Tensor, seed: Tensor, starts: tuple[Tensor, ...], keep: bool) -> None:
    """`torch.autograd.grad(outputs, starts, seed, allow_unused=True)`, whose checks in Python take a small network
    as long as a layer."""
    torch.autograd.Variable._execution_engine.run_backward(
        (outputs,), (seed,), keep, False, starts, True, accumulate_grad=False
    )

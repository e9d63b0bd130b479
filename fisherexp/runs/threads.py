"""How many threads torch should use inside one operation.

Small kernels spin against each other: on shared cores a small net is several times slower with many threads
than with one. The choice is made from the arithmetic of one batch, a property of model and data alone.
"""

import os

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# Below this, splitting a forward pass costs more than it saves (floating-point operations of one batch).
WORTH_SPLITTING = 1e9


def forward_flops(model: nn.Module, *inputs: torch.Tensor) -> int:
    """Floating-point operations of one forward pass over `inputs`."""
    was_training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    model.train(was_training)
    return counter.get_total_flops()


def choose_threads(model: nn.Module, *inputs: torch.Tensor) -> tuple[int, str]:
    """(number of threads, why). inputs: what the model is called with, of one training batch."""
    flops = forward_flops(model, *inputs)
    size = f"{flops / 1e9:.2g} GFLOP a batch"
    available = available_cores()
    if flops < WORTH_SPLITTING or available == 1:
        return 1, f"small steps, {size}; threads=N to change"
    return available, f"{size}; threads=N to change"


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

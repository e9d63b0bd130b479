"""Statistics of BatchNorm for weights that were never trained: those of a batch of images."""

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call


def with_statistics(model: nn.Module, state: dict[str, Tensor], images: Tensor) -> dict[str, Tensor]:
    """`state` with running means and variances of BatchNorm as `images` (B, C, H, W) give them.

    After Jordan et al., ICLR 2023, arXiv 2211.08403: in a mean of two networks the variance of activations collapses,
    and the mean of their running statistics hides it.
    """
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    if not norms:
        return state
    probe = copy.deepcopy(model).train()
    for name in norms:
        layer = probe.get_submodule(name)
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean: of one batch, the batch's own
    fresh = dict(probe.named_buffers())
    with torch.no_grad():
        functional_call(probe, state | fresh, images)
    return state | {name: buffer for name, buffer in fresh.items() if name.rpartition(".")[0] in norms}

"""A network whose parameters are cut into shares, one for each process: fully sharded data parallel, torch's FSDP2.

A process holds its share of weights, gradients and optimizer state. What a block computes with is gathered before its
forward and its backward pass, and dropped after them.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor


def cut(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """The network to train in the place of `model`, whose own parameters are emptied until `put_together`.

    Block by block: what stands in a ModuleList is gathered one at a time, all the rest at once. The weights are those
    of the first process. Shares are cut along the first axis.
    """
    shared = copy.deepcopy(model)
    for p in model.parameters():
        p.data = p.data.new_empty(0)
    for block in blocks(shared):
        fully_shard(block, mesh=mesh)
    return fully_shard(shared, mesh=mesh)


@torch.no_grad()
def put_together(shared: nn.Module, model: nn.Module) -> None:
    """Put whole weights and the buffers of `shared` into `model`, from which it was cut; on every process."""
    for module in shared.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # what was gathered last and not used in a backward pass
    for p, share in zip(model.parameters(), shared.parameters(), strict=True):
        p.data = share.full_tensor().detach() if isinstance(share, DTensor) else share.detach()
    for buffer, found in zip(model.buffers(), shared.buffers(), strict=True):
        buffer.copy_(found)


def blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that stand in a ModuleList and have parameters."""
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            yield from (block for block in child if any(True for _ in block.parameters()))
        else:
            yield from blocks(child)


def local(tensor: Tensor) -> Tensor:
    """This process's share of a tensor; the tensor itself where it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor

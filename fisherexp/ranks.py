"""Several processes, one run: the first one decides, claims, writes and speaks, the others follow.

Lightning starts the others by running the same command line again, so they arrive at every question the first
one has answered; where both must agree, the answer is broadcast.
"""

import functools
import os
import sys


def is_follower() -> bool:
    """Is this process another rank of a run than the first? Known from the environment, before torch is imported."""
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and int(os.environ.get("SLURM_PROCID", "0")) > 0:
        return True
    return any(int(os.environ.get(name) or 0) > 0 for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))


@functools.cache
def say_once(line: str) -> None:
    """A line to the user, once in a process, however often it is found: a sweep would repeat it for every run."""
    if not is_follower():
        print(line, file=sys.stderr)


def agreed(answer: bool) -> bool:
    """The first rank's answer, on every rank; one's own while there is no process group."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return answer
    box = [answer]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def take_buffers_of_first(module) -> None:
    """Make buffers equal on all ranks: batch statistics are collected by each rank on its own share of the data."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def rank() -> int:
    """This process's number; 0 while there is no process group."""
    import torch.distributed as dist

    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def joined_over_ranks(rows):
    """Tensors (n, …) of all ranks, one after the other, on every rank; unchanged for a single process.

    n may differ from rank to rank, what follows it must not. Differentiable: where every rank makes the same scalar of
    the joined rows, its gradients, averaged over ranks as DDP does, are those of a single process.
    """
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return rows
    counts = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=rows.device)
    counts[dist.get_rank()] = len(rows)
    dist.all_reduce(counts)
    before, after = counts[: dist.get_rank()].sum().item(), counts[dist.get_rank() + 1 :].sum().item()
    blank = rows.new_zeros(before + after, *rows.shape[1:])
    return _sum_over_ranks(torch.cat([blank[:before], rows, blank[before:]]))


def mean_over_ranks(tensor):
    """Its mean over ranks, on every rank; differentiable in the sense of `joined_over_ranks`."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return tensor
    return _sum_over_ranks(tensor) / dist.get_world_size()


def _sum_over_ranks(tensor):
    """The sum over ranks, on every rank; its gradient is the sum of the ranks' gradients, to any order.

    Written here because torch's own (deprecated) function keeps the process group alive in the graph: gloo's threads
    then outlive `destroy_process_group`, and the interpreter may abort when it ends.
    """
    import torch
    import torch.distributed as dist

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor):
            total = tensor.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(total)
            return total

        @staticmethod
        def backward(ctx, gradient):
            return Sum.apply(gradient)

    return Sum.apply(tensor)


def over_ranks(sums: dict, largest: tuple[str, ...] = ()) -> dict:
    """Tensors by name summed over ranks, those in `largest` by their maximum; unchanged for a single process.

    One GPU and eight give the same numbers, up to the order of a float sum.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return sums
    reduced = {name: total.clone() for name, total in sums.items()}
    for name, total in reduced.items():
        dist.all_reduce(total, op=dist.ReduceOp.MAX if name in largest else dist.ReduceOp.SUM)
    return reduced


def in_order(gathered):
    """A tensor of per-sample values, gathered rank after rank, in the order of a single process.

    Rank r of w goes through samples r, r + w, r + 2w… of a part.
    """
    import torch
    import torch.distributed as dist

    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if world == 1:
        return gathered
    single = torch.arange(len(gathered))
    positions = torch.cat([single[rank::world] for rank in range(world)])
    return gathered[positions.argsort().to(gathered.device)]

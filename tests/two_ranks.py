"""What two processes (gloo) find, each with a share of the work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def found_by_two(work: Callable[[int], Any], folder: Path) -> list[Any]:
    """`work(rank)` of both ranks, tensors in plain containers, as found in processes of their own."""
    torch.multiprocessing.spawn(_one, (work, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def _one(rank: int, work: Callable[[int], Any], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(work(rank), f"{folder}/{rank}.pt")
    dist.destroy_process_group()

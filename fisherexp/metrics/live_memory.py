"""How many bytes of tensors a computation has alive at once: what it makes, not the weights it is given.

Counted are the storages of tensors that torch's operations return, from then until the last of them is gone; what a
kernel needs inside itself is not seen. A tensor that is made of others, as a quantized one, has no storage but theirs.
Unlike the memory of the process, it is the same in every run.
"""

import weakref
from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """`with LiveMemory() as memory: model(x)`, without gradients; then `memory.peak` and `memory.largest` are in bytes:
    of all tensors alive at once, and of the largest one."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.largest = 0
        self._owners: dict[int, int] = {}  # address of a storage -> tensors on it
        self._given: Counter[int] = Counter()  # the same of storages that were there before
        self._known: set[int] = set()  # those tensors, by id

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if _has_storage(tensor) and (address := _address(tensor)) not in self._owners:
                self._give(tensor, address)
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if _has_storage(tensor):
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        address, size = _address(tensor), tensor.untyped_storage().nbytes()
        if address in self._given:
            self._give(tensor, address)
            return
        if not size:
            return
        if address not in self._owners:
            self._owners[address] = 0
            self.now += size
            self.peak, self.largest = max(self.peak, self.now), max(self.largest, size)
        self._owners[address] += 1
        weakref.finalize(tensor, self._gone, address, size)

    def _give(self, tensor: Tensor, address: int) -> None:
        if id(tensor) not in self._known:
            self._known.add(id(tensor))
            self._given[address] += 1
            # Once it is gone, its address may be that of another.
            weakref.finalize(tensor, self._taken, id(tensor), address)

    def _taken(self, known: int, address: int) -> None:
        self._known.discard(known)
        self._given[address] -= 1
        if not self._given[address]:
            del self._given[address]

    def _gone(self, address: int, size: int) -> None:
        self._owners[address] -= 1
        if not self._owners[address]:
            del self._owners[address]
            self.now -= size


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _has_storage(value: Any) -> bool:
    return isinstance(value, Tensor) and not is_traceable_wrapper_subclass(value)

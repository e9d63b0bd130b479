"""Passes through one block of a model after another, each from where the one before it ended.

Blocks that are changed one by one, each by what it is given in the model as changed so far, ask for as many passes as
there are blocks. In a chain of blocks a pass need not begin at the start: the inputs of a block are what the block
before it returns (the order of work in the code of GPTQ and SparseGPT).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn


class Call(NamedTuple):
    """What a block is called with. versions: of all tensors of it, one more for each change in place."""

    block: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    versions: list[int]

    @classmethod
    def of(cls, block: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Call":
        return cls(block, args, kwargs, _versions((args, kwargs)))

    def changed(self) -> bool:
        """Whether a tensor of it was changed in place since."""
        return self.versions != _versions((self.args, self.kwargs))

    def follows(self, other: "Call", output: Any) -> bool:
        """Whether it is the other call with that one's output in the place of the first argument."""
        if not self.args or len(self.args) != len(other.args) or self.kwargs.keys() != other.kwargs.keys():
            return False
        beside = [*zip(self.args[1:], other.args[1:], strict=True)]
        beside += [(self.kwargs[name], other.kwargs[name]) for name in self.kwargs]
        return self.args[0] is _first(output) and all(one is another and _plain(one) for one, another in beside)


class BlockByBlock:
    """Passes over the same batches for each of some blocks, in their order; between two, one block may change.

    A block goes on from the one before it where that one's output, or its first, is the block's first argument and all
    others are the very objects that the one before was called with: tensors and plain values, no cache. All else, as
    blocks with masks of their own, something between them, or layers that are called from outside their block, takes
    passes from the start. So does a block that has changed its inputs in place. Blocks must not leave each other
    anything but that, as attributes of a module.

    blocks: name -> names of its layers. links: by batch, which blocks pass on to the next; known from whole passes.
    """

    def __init__(self, model: nn.Module, blocks: Mapping[str, Sequence[str]]) -> None:
        self.model, self.names, self.blocks = model, list(blocks), blocks
        self.links: dict[int, list[bool]] = {}
        self.calls: dict[int, Call] = {}

    @property
    def num_bytes(self) -> int:
        """Of the inputs that are kept."""
        found = [tensor for call in self.calls.values() for tensor in _tensors((call.args, call.kwargs))]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in found}
        return sum(storages.values())

    def run(self, block: int, batch: int, inputs: Any) -> None:
        """Have a block called with a batch, by a pass from the start or from the block before. All but that block and
        the one before must be as when this batch was last run."""
        call, links = self.calls.pop(batch, None), self.links.get(batch)
        if call is None or call.block != block - 1 or call.changed():
            with self._recording(block, batch):
                self.model(inputs)
            return
        made = self._module(block - 1)(*call.args, **call.kwargs)
        call = Call.of(block, (_first(made), *call.args[1:]), call.kwargs)
        if links[block]:
            self.calls[batch] = call
        self._module(block)(*call.args, **call.kwargs)

    def _module(self, block: int) -> nn.Module:
        return self.model.get_submodule(self.names[block])

    @contextmanager
    def _recording(self, wanted: int, batch: int) -> Iterator[None]:
        """Find out which blocks are linked, if the pass gets to its end, and keep what the wanted block is called with
        if it is linked to the next."""
        linked = [False] * len(self.names)
        alone = [True] * len(self.names)  # called once, and its layers only from inside
        seen: set[int] = set()
        running: list[Call] = []
        last: list[tuple[Call, Any]] = []  # what returned last, and what it returned

        def enter(block: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            call = Call.of(block, args, kwargs)
            if block in seen:
                alone[block] = False
            elif last and last[0][0].block == block - 1:
                linked[block - 1] = call.follows(*last[0])
            seen.add(block)
            running.append(call)
            if block == wanted:
                self.calls[batch] = call

        def leave(block: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            last[:] = [(running.pop(), output)]

        def layer(block: int, module: nn.Module, args: tuple[Any, ...]) -> None:
            if block not in [call.block for call in running]:
                alone[block] = False

        hooks = []
        for block, layers in enumerate(self.blocks.values()):
            module = self._module(block)
            hooks.append(module.register_forward_pre_hook(partial(enter, block), with_kwargs=True))
            hooks.append(module.register_forward_hook(partial(leave, block)))
            inside = [self.model.get_submodule(name) for name in layers]
            hooks += [each.register_forward_pre_hook(partial(layer, block)) for each in inside if each is not module]
        try:
            yield
            pairs = zip(linked, alone, [*alone[1:], False], strict=True)
            self.links[batch] = [all(each) for each in pairs]
        finally:
            for each in hooks:
                each.remove()
            if batch not in self.links or not self.links[batch][wanted]:
                self.calls.pop(batch, None)


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) and output else output


def _plain(value: Any) -> bool:
    """Whether a value holds nothing that a call could change unseen."""
    if isinstance(value, tuple | list):
        return all(map(_plain, value))
    return value is None or isinstance(value, Tensor | bool | int | float | str)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)


def _versions(value: Any) -> list[int]:
    return [0 if tensor.is_inference() else tensor._version for tensor in _tensors(value)]

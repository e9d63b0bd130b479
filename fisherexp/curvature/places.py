"""Where a model keeps its parameters."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .tape import Tape


class Places:
    """Where a model keeps its parameters, so that a forward pass can meet tracked ones instead."""

    def __init__(self, model: nn.Module):
        modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
        self.modules = [(m._modules, list(m._modules.values())) for m in modules]
        self.holders = [(m.__dict__, m._parameters) for m in modules if m._parameters]
        self.linears = [m for m in modules if type(m) is nn.Linear]
        names = {id(p): name for name, p in model.named_parameters()}
        self.places = [
            (module._parameters, key, p, names[id(p)])
            for module in modules
            for key, p in module._parameters.items()
            if p is not None
        ]
        self.ids = [id(p) for _, _, p, _ in self.places]

    def current(self) -> bool:
        """Whether the model still consists of the modules and parameters it had."""
        for children, earlier in self.modules:
            if len(children) != len(earlier) or [*children.values()] != earlier:
                return False
        if any(attributes["_parameters"] is not holder for attributes, holder in self.holders):
            return False
        return [id(holder.get(key)) for holder, key, _, _ in self.places] == self.ids

    def forwards(self, tape: Tape) -> list[tuple[dict[str, Any], Callable]]:
        """For linear layers as torch has them, (attributes of the module, its forward on `tape`)."""
        names = {(id(holder), key): name for holder, key, _, name in self.places if name in tape.tracked}
        found = []
        for module in self.linears:
            weight, bias = (names.get((id(module._parameters), key)) for key in ("weight", "bias"))
            if weight is not None and (bias is not None or module._parameters.get("bias", module) is None):
                found.append((module.__dict__, tape.linear(module, weight, bias)))
        return found

    @contextmanager
    def hold(self, tracked: dict[str, Tensor], forwards: Iterable[tuple[dict[str, Any], Callable]] = ()) -> Iterator:
        """While open, modules hold `tracked` (by name) instead of these parameters, and use `forwards`."""
        own = [(attributes, forward) for attributes, forward in forwards if "forward" not in attributes]
        try:
            for holder, key, p, name in self.places:
                holder[key] = tracked.get(name, p)
            for attributes, forward in own:
                attributes["forward"] = forward
            yield
        finally:
            for holder, key, p, _ in self.places:
                holder[key] = p
            for attributes, _ in own:
                attributes.pop("forward", None)

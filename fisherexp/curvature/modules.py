"""Rules registered for whole module classes: a call of such a module appears to the engine as one operation.

The module runs as one torch function, `call_module`, among whose arguments are its parameters; the layout trace
and the tape then treat it like any other operation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import handle_torch_function, has_torch_function

from .rules import Use, module_rules, register_rule


class _OwnForward(nn.Module):
    """The forward of a module's class, whatever the instance's `forward` is at the moment."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *inputs):
        return type(self.module).forward(self.module, *inputs)


class _Ruled:
    """A module, the names of its parameters, and the rule of its class."""

    def __init__(self, module: nn.Module, rule: Callable):
        self.module, self.rule = module, rule
        self.names = [name for name, _ in module.named_parameters()]

    def __call__(self, *inputs):
        return call_module([p for _, p in self.module.named_parameters()], inputs, self)


def call_module(values: list[Tensor], inputs: tuple, ruled: _Ruled) -> Tensor:
    """The module evaluated with `values` as parameters; dispatches as torch functions do."""
    if has_torch_function((*values, *(i for i in inputs if isinstance(i, Tensor)))):
        return handle_torch_function(call_module, values, values, inputs, ruled)
    named = {f"module.{name}": value for name, value in zip(ruled.names, values, strict=True)}
    return functional_call(_OwnForward(ruled.module), named, inputs)


class ModuleUse(Use):
    """One call of a module that has a registered rule."""

    def __init__(self, call, values, inputs, ruled):
        super().__init__(call, **dict(zip(ruled.names, values, strict=True)))
        self.ruled, self.given = ruled, tuple(i.detach() if isinstance(i, Tensor) else i for i in inputs)

    def per_sample(self, slot, g, rows):
        return self.ruled.rule(self.ruled.module, self.given, g)[slot][rows].to(g.dtype)

    def add_squares(self, g, totals, last=True):
        gradients = self.ruled.rule(self.ruled.module, self.given, g)
        for slot, total in totals.items():
            total += gradients[slot].to(g.dtype).square().sum(0)


register_rule(call_module, ModuleUse)


@contextmanager
def ruled_modules(model: nn.Module) -> Iterator[None]:
    """While open, modules of `model` whose class has a registered rule run as one operation each."""
    rules = module_rules()
    chosen = [m for m in model.modules() if type(m) in rules] if rules else []
    try:
        for module in chosen:
            module.forward = _Ruled(module, rules[type(module)])
        yield
    finally:
        for module in chosen:
            module.__dict__.pop("forward", None)

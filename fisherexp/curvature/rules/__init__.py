"""One rule per operation, found by the torch function a layer calls.

Rules belong to functions and not to module classes: a module used twice, a weight used by two modules, and a
layer written without `torch.nn` are then the same case. `register_rule` adds one.
"""

from collections.abc import Callable

from torch import nn

from . import assignment, attention, broadcast, conv, embedding, linear, matmul, normalization
from .base import Call, Handle, NotFollowed, Unsupported, Use
from .fallback import Fallback

_RULES: dict[Callable, type[Use]] = {}
for _module in (linear, matmul, conv, normalization, embedding, broadcast):
    _RULES |= _module.RULES
DECOMPOSITIONS: dict[Callable, Callable] = attention.DECOMPOSITIONS | assignment.DECOMPOSITIONS | matmul.DECOMPOSITIONS
_MODULE_RULES: dict[type[nn.Module], Callable] = {}


def register_rule(target: Callable | type[nn.Module], rule: type[Use] | Callable) -> None:
    """Add a rule for a layer from outside this package.

    target: a function that dispatches on `__torch_function__`, with `rule` a subclass of `Use`; or a module
    class, with `rule(module, inputs, grad_output) -> {parameter name: per-sample gradients (N, *shape)}`.
    A later registration of the same target replaces the earlier one.
    Raises TypeError if the rule does not fit the target.
    """
    if isinstance(target, type) and issubclass(target, nn.Module):
        if not callable(rule):
            raise TypeError(f"the rule of {target.__name__} must be callable")
        _MODULE_RULES[target] = rule
        return
    if not (isinstance(rule, type) and issubclass(rule, Use)):
        raise TypeError(f"the rule of {target!r} must be a subclass of Use")
    _RULES[target] = rule


def rule_for(func: Callable) -> type[Use] | None:
    """The rule of a torch function, or None."""
    return _RULES.get(func)


def module_rules() -> dict[type[nn.Module], Callable]:
    """A copy of the rules registered for module classes."""
    return dict(_MODULE_RULES)


__all__ = [
    "DECOMPOSITIONS",
    "Call",
    "Fallback",
    "Handle",
    "NotFollowed",
    "Unsupported",
    "Use",
    "module_rules",
    "register_rule",
    "rule_for",
]

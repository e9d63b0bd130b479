"""A model lent for a computation and given back as it was; which of its parameters take part."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .choices import check_choice
from .rules.normalization import BatchStatistics


def wanted_parameters(model: nn.Module, parameters: Any = None) -> dict[str, nn.Parameter]:
    """Parameters by name. None: all that require gradients; else names, tensors, or a predicate on the name.

    A parameter shared by several modules appears once, under its first name. Raises ValueError for an unknown
    name or an empty selection.
    """
    everything = dict(model.named_parameters())
    if parameters is None:
        chosen = {n: p for n, p in everything.items() if p.requires_grad}
    elif callable(parameters):
        chosen = {n: p for n, p in everything.items() if parameters(n)}
    else:
        known = {id(p): n for n, p in everything.items()}
        aliases = dict(model.named_parameters(remove_duplicate=False))
        chosen = {}
        for item in [parameters] if isinstance(parameters, (str, Tensor)) else parameters:
            tensor = aliases[check_choice("parameter", item, aliases)] if isinstance(item, str) else item
            if id(tensor) not in known:
                raise ValueError(
                    f"a parameter of shape {tuple(item.shape)} is not one of the model's {len(everything)}"
                )
            chosen[known[id(tensor)]] = everything[known[id(tensor)]]
    if not chosen:
        raise ValueError("no parameter to compute curvature for: all are frozen or none was selected")
    return chosen


class Undisturbed:
    """Context: eval mode with gradients enabled; modes, buffers and requires_grad flags are put back after it.

    wanted: names of parameters that require gradients inside (all others do not); None leaves the flags alone.
    The lists of modules are made once, so that entering costs little for a small model.
    """

    def __init__(self, model: nn.Module, wanted: Iterable[str] | None = None):
        self.modules = list(model.modules())
        self.buffers = [m._buffers for m in self.modules if not isinstance(m, torch.jit.ScriptModule)]
        self.compiled = any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in self.modules)
        names = None if wanted is None else set(wanted)
        named = model.named_parameters()
        self.flags = [] if names is None else [(p, name in names) for name, p in named]

    def __enter__(self) -> None:
        self.trained = [m for m in self.modules if m.training]
        self.copies = [(h, key, b, b.clone()) for h in self.buffers for key, b in h.items() if b is not None]
        self.changed = [(p, p.requires_grad) for p, flag in self.flags if p.requires_grad != flag]
        self.contexts: list[Any] = []
        if self.compiled:  # a compiled graph would neither meet tracked parameters nor show its operations
            self.contexts.append(torch.compiler.set_stance("force_eager"))
        if torch.is_inference_mode_enabled():
            self.contexts.append(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            self.contexts.append(torch.enable_grad())
        if any(flag for _, flag in self.changed):
            self.contexts.append(_without_fast_path())
        for context in self.contexts:
            context.__enter__()
        # Not model.eval(): overridden versions may do more than switch the mode (merge adapters, for one).
        for module in self.trained:
            object.__setattr__(module, "training", False)
        for p, flag in self.changed:
            p.requires_grad_(not flag)

    def __exit__(self, *exception) -> None:
        for p, flag in self.changed:
            p.requires_grad_(flag)
        for module in self.trained:
            object.__setattr__(module, "training", True)
        for holder, key, buffer, before in self.copies:
            holder[key] = buffer
            if not torch.equal(buffer, before):
                with torch.no_grad():
                    buffer.copy_(before)
        for context in reversed(self.contexts):
            context.__exit__(*exception)
        del self.copies, self.trained, self.changed, self.contexts


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Attention of torch whose weights require no gradient leaves padding at 0; frozen for a while, it must not."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def refuse_batch_statistics(model: nn.Module) -> None:
    """Raise `BatchStatistics` (a ValueError) if a batch norm has no stored statistics to use in eval mode."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise BatchStatistics(f"{type(module).__name__} {name!r}")

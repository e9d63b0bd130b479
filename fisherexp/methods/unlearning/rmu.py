"""RMU: steer a layer's states of forgotten texts to a random direction, and hold those of retained texts.

Paper: Li et al., ICML 2024, arXiv 2403.03218. With h_t(x; θ) ∈ ℝ^d the output of the layer at token t, u ~ U[0, 1)^d
drawn once, and mean_i mean_t over the n_i tokens of sequence i that count,

    L(θ) = γ mean_i mean_t ‖h_t(x_i; θ) - c u / ‖u‖‖² / d  +  α mean_j mean_t ‖h_t(x_j; θ) - h_t(x_j; θ_0)‖² / d

for i in B_f and j in B_r, θ_0: the source. Form and defaults of open-unlearning (arXiv 2506.12618), where a mean over
sequences is mean_i(sum_i) · mean_i(1/n_i) by a slip of shapes. Which states count: those from which a token that
counts is predicted; there, those of the tokens themselves, one place further on.

Layers above the steered one have no gradient and stay as they are.
"""

import re
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Pattern, Positive
from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.forget_retain import ForgetRetain
from fisherexp.methods.unlearning.sequence_losses import lengths
from fisherexp.methods.unlearning.teacher import Taught
from fisherexp.objectives.token_prediction import IGNORED
from fisherexp.seeds import generator


def control_vector(width: int, coefficient: float, stream: torch.Generator) -> Tensor:
    """c u / ‖u‖, u uniform on [0, 1)^d: (width,)."""
    direction = torch.rand(width, generator=stream)
    return coefficient * direction / direction.norm()


def mean_distance(states: Tensor, wanted: Tensor, targets: Tensor) -> Tensor:
    """mean_i mean_t ‖states - wanted‖² / d, a scalar: states (B, T, d), wanted (d,) or (B, T, d), targets (B, T)."""
    each = (states - wanted).square().mean(-1) * (targets != IGNORED)
    return (each.sum(1) / lengths(targets).clamp_min(1)).mean()


def states_of(model: nn.Module, layer: str, inputs: Any) -> Tensor:
    """The output of a submodule (its first one, of several), as the model goes over inputs."""
    found: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handle = model.get_submodule(layer).register_forward_hook(keep)
    try:
        model(inputs)
    finally:
        handle.remove()
    return found[-1]


class RMU(ForgetRetain, Taught):
    """layer: an expression for the name of the layer that is steered. coefficient: c. forget_weight: γ.
    retain_weight: α. trained: an expression for the names of the parameters that are trained, None for all.

    Raises ValueError unless each expression finds what it is for, `layer` exactly one module.
    """

    paper = "Li et al., ICML 2024, arXiv 2403.03218"
    requires = ("next_tokens",)
    counts_with = {
        "layer": {"layer": r"blocks\.1$"},
        "trained": {"trained": r"mlp\.2\.weight$"},
    }

    def __init__(
        self, model: nn.Module, layer: Pattern, coefficient: Positive, trained: Pattern | None, **options: Any
    ) -> None:
        super().__init__(model, **options)
        self.layer, self.coefficient = only_module(model, layer), coefficient
        self.trained = parameter_names(model, trained)
        self.seed = 0
        self.hire()

    def batches(self, setting: Any) -> Any:
        self.seed = setting.seed
        return super().batches(setting)

    def forgotten(self, states: Tensor, batch: Batch) -> Tensor:
        control = control_vector(states.shape[-1], self.coefficient, generator("rmu", self.seed))
        return mean_distance(states, control.to(states), batch.targets)

    def retained(self, states: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            wanted = states_of(self.teacher, self.layer, batch.inputs)
        return mean_distance(states, wanted, batch.targets)

    def outputs(self, inputs: Any) -> Tensor:
        return states_of(self.model, self.layer, inputs)

    def configure_optimizers(self) -> dict[str, Any]:
        trained = [parameter for name, parameter in self.model.named_parameters() if name in self.trained]
        return self.training_recipe.configure_groups(trained, self.steps_per_epoch)


def only_module(model: nn.Module, pattern: str) -> str:
    """The name of the one module that a pattern finds. Raises ValueError."""
    names = [name for name, _ in model.named_modules() if name]
    found = [name for name in names if re.search(pattern, name)]
    if len(found) != 1:
        blocks = [name for name in names if re.search(r"\.\d+$", name)]
        known = ", ".join(found[:3] or blocks[:3]) + " …"
        raise ValueError(f"method.layer={pattern} finds {len(found)} layers instead of one: {known}")
    return found[0]


def parameter_names(model: nn.Module, pattern: str | None) -> list[str]:
    """Names of the parameters that a pattern finds, of all without one. Raises ValueError where there is none."""
    names = [name for name, _ in model.named_parameters()]
    found = [name for name in names if pattern is None or re.search(pattern, name)]
    if not found:
        raise ValueError(f"method.trained={pattern} finds no parameter: {', '.join(names[:3])} …")
    return found

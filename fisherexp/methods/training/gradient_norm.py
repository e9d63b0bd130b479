"""How much a network's mean output moves with its weights, and the gradient of that by finite differences.

    G(β) = mean_i h_β(x_i),   ∇_β ‖∇G‖ = H ∇G / ‖∇G‖ ≈ (∇G(β + r ∇G/‖∇G‖) - ∇G(β)) / r,   H the Hessian of G

Dao, Hoang et al., NeurIPS 2024, arXiv 2503.04242.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

Gradient = dict[str, Tensor]


def mean_output_gradient(model: nn.Module, parameters: Mapping[str, Tensor], inputs: Tensor) -> Gradient:
    """∇G at `parameters`, by name, of the first output of the model for inputs (n, d); names on which G does not depend
    are left out. The model's own parameters are not touched."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
    output = functional_call(model, leaves, (inputs,))
    mean = (output[0] if isinstance(output, tuple) else output).mean()
    found = torch.autograd.grad(mean, list(leaves.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(leaves, found, strict=True) if gradient is not None}


def norm(gradient: Gradient) -> Tensor:
    """Euclidean norm over all entries, a scalar."""
    return torch.stack([part.norm() for part in gradient.values()]).norm()


def gradient_norm_gradient(model: nn.Module, inputs: Tensor, radius: float) -> tuple[Gradient, Tensor]:
    """(∇_β ‖∇G‖ by name, ‖∇G‖): a difference of two gradients, `radius` apart. The gradient is zero where ∇G is."""
    parameters = dict(model.named_parameters())
    here = mean_output_gradient(model, parameters, inputs)
    size = norm(here)
    scale = radius / size if size > 0 else 0.0
    there = mean_output_gradient(
        model, parameters | {name: parameters[name] + scale * part for name, part in here.items()}, inputs
    )
    return {name: (there[name] - part) / radius for name, part in here.items()}, size

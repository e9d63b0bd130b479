"""Gradients of private steps: each sample's cut to a length, noise on their sum; how much noise an ε asks for."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fisherexp.data.batch import Batch, mapped
from fisherexp.objectives.objective import Objective


def sample_gradients(
    model: nn.Module, parameters: Mapping[str, Tensor], objective: Objective, batch: Batch
) -> dict[str, Tensor]:
    """(B, …) for each of the named parameters: the gradient of each sample's own loss. No layer may mix samples."""

    def loss(values: Mapping[str, Tensor], inputs: Tensor, target: Tensor) -> Tensor:
        outputs = functional_call(model, dict(values), (mapped(inputs, lambda tensor: tensor[None]),))
        return objective.loss(outputs, target[None])

    values = {name: parameter.detach() for name, parameter in parameters.items()}
    return vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")(values, batch.inputs, batch.targets)


def private_sum(gradients: Mapping[str, Tensor], clip: float, noise_multiplier: float) -> dict[str, Tensor]:
    """Σ_i g_i min(1, C / ‖g_i‖) + σ C N(0, I), the norm over all parameters together (Abadi et al. 2016)."""
    squares = sum(gradient.flatten(1).square().sum(1) for gradient in gradients.values())
    factors = (clip / squares.sqrt().clamp_min(torch.finfo(squares.dtype).tiny)).clamp(max=1)
    summed = {name: torch.einsum("i,i...->...", factors, gradient) for name, gradient in gradients.items()}
    if not noise_multiplier:
        return summed
    return {name: total + noise_multiplier * clip * torch.randn_like(total) for name, total in summed.items()}


def noise_of_epsilon(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """σ with which `steps` steps that each see a sample with probability `rate` are (ε, δ)-private, by the PRV
    accountant of opacus (Gopi, Lee, Wutschitz 2021). Raises ModuleNotFoundError, in one line, without opacus.
    """
    try:
        from opacus.accountants.utils import get_noise_multiplier
    except ImportError:
        line = "method.epsilon needs opacus: pip install 'fisherexp[privacy]', or give method.noise_multiplier"
        raise ModuleNotFoundError(line) from None
    return get_noise_multiplier(
        target_epsilon=epsilon, target_delta=delta, sample_rate=rate, steps=steps, accountant="prv"
    )

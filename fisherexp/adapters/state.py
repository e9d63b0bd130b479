"""What fine-tuning with adapters adds to a model, as a state dict that is loaded onto the same frozen weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fisherexp.adapters.layers import adapted_layers


def adapter_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of all adapters, and the parameters trained beside them, by their names in the model.

    The tensors are the model's own, as in `state_dict`. Buffers of other layers, such as the statistics of
    BatchNorm, are left out: keep the model in eval mode if they must not change, or save the whole state dict.
    """
    wanted = _names(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name in wanted}


@torch.no_grad()
def load_adapter_state_dict(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what `adapter_state_dict` gave into a model with the same adapters and frozen weights.

    Raises ValueError with all missing, unexpected and misshapen entries; the model is then as it was.
    """
    own = adapter_state_dict(model)
    problems = [f"'{name}' is missing" for name in own if name not in state]
    problems += [f"'{name}' is not part of the model's adapters" for name in state if name not in own]
    problems += [
        f"'{name}' has shape {tuple(tensor.shape)}, the model's {tuple(own[name].shape)}"
        for name, tensor in state.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if problems:
        raise ValueError("; ".join(problems))
    for name, tensor in state.items():
        own[name].copy_(tensor)


def _names(model: nn.Module) -> set[str]:
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    of_adapters = (f"{layer}.adapters.".lstrip(".") for layer in adapted_layers(model))
    prefixes = tuple(of_adapters)
    return trained | {name for name in model.state_dict() if name.startswith(prefixes)}

"""Steps of an optimizer on given gradients, whole or restored in the middle."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def places(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, gradients: Sequence[Tensor]) -> Tensor:
    """Where the parameter is behind each step."""
    found = []
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        found.append(parameter.detach().clone())
    return torch.stack(found)


def places_restored(
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], start: Tensor, gradients: Sequence[Tensor], file: Path
) -> Tensor:
    """The same from `start`, with weights and state written to a file and read by a new optimizer half way."""
    middle, first = len(gradients) // 2, nn.Parameter(start.clone())
    optimizer = make([first])
    begun = places(optimizer, first, gradients[:middle])
    torch.save({"optimizer": optimizer.state_dict(), "weights": first.detach()}, file)
    saved = torch.load(file, weights_only=True)
    second = nn.Parameter(saved["weights"])
    resumed = make([second])
    resumed.load_state_dict(saved["optimizer"])
    return torch.cat([begun, places(resumed, second, gradients[middle:])])

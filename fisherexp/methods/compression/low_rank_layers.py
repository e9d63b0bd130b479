"""Linear and convolutional layers with a low-rank part beside them, put into a model and merged again."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LowRankLayer(nn.Module):
    """layer(x) with the weight W + L R: W the layer's own, L (n, r) and R (r, m) trained beside it.

    layer: nn.Linear, or nn.Conv2d whose weight counts as a matrix (channels out, all else). L and R begin as zero, so
    that putting it in changes nothing. r is `rank`, or fewer where W has fewer rows or columns.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.layer = layer
        n, m = layer.weight.flatten(1).shape
        rank = min(rank, n, m)
        self.left = nn.Parameter(layer.weight.new_zeros(n, rank))
        self.right = nn.Parameter(layer.weight.new_zeros(rank, m))

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return self.layer(x) + F.linear(F.linear(x, self.right), self.left)
        weight, conv = self.right.view(-1, *self.layer.weight.shape[1:]), self.layer
        inner = F.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation)
        return conv(x) + F.conv2d(inner, self.left[:, :, None, None])

    @property
    def matrix(self) -> Tensor:
        """The layer's own weight as a matrix (n, m)."""
        return self.layer.weight.flatten(1)

    @torch.no_grad()
    def decompose(self, rest: Tensor | float, left: Tensor, right: Tensor) -> None:
        """Set W (n, m), and the factors, and train W no more."""
        self.layer.weight.copy_(torch.as_tensor(rest).expand_as(self.matrix).reshape(self.layer.weight.shape))
        self.left.copy_(left)
        self.right.copy_(right)
        self.layer.weight.requires_grad_(False)

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The layer with the low-rank part added to its weight."""
        self.layer.weight += (self.left @ self.right).view_as(self.layer.weight)
        self.layer.weight.requires_grad_()
        return self.layer


def put_in(model: nn.Module, rank: int | None, ratio: float) -> dict[str, LowRankLayer]:
    """Put a low-rank part beside every linear layer and plain convolution of `model` but its head; returned by name.

    rank: of all; None for that at which L and R hold `ratio` times the weights of W, ratio · n m / (n + m), at least 1.
    Frozen layers are left out. Raises ValueError if there is nothing to take.
    """
    head = getattr(model, "head", None)
    found = {name: layer for name, layer in model.named_modules() if _fits(layer) and layer is not head}
    if not found:
        raise ValueError(f"{type(model).__name__} has no linear or convolutional layer besides its head to factorize")
    layers = {}
    for name, layer in found.items():
        n, m = layer.weight.flatten(1).shape
        layers[name] = LowRankLayer(layer, rank or max(1, int(ratio * n * m / (n + m))))
        model.set_submodule(name, layers[name])
    return layers


def merge(model: nn.Module, layers: dict[str, LowRankLayer]) -> None:
    """Back to the layers that `put_in` found, with their low-rank parts added."""
    for name, layer in layers.items():
        model.set_submodule(name, layer.merged())


def _fits(layer: nn.Module) -> bool:
    plain = isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    )
    return plain and layer.weight.requires_grad

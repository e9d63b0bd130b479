"""Hyper-parameters that are tuned as one vector without bounds, and a draw of it around its present place."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Name -> upper end of the range, which begins at zero; None: there is none.
RANGES: dict[str, float | None] = {
    "input_dropout": 1.0,
    "hidden_dropout": 0.9,
    "brightness": 1.0,
    "contrast": 1.0,
    "cutout": 1.0,
    "decay": None,
}
# Of η from zero at the start. A rate of zero, at minus infinity, becomes 0.7 % of its range, a decay of zero 6e-6.
FARTHEST, OF_UNBOUNDED = 5.0, 12.0


def project(eta: Tensor, name: str) -> Tensor:
    """λ of η: a sigmoid stretched over the range, or softplus where it has no upper end."""
    high = RANGES[name]
    return F.softplus(eta) if high is None else high * eta.sigmoid()


def unproject(value: float, name: str) -> Tensor:
    """η of λ, a scalar, not too far from zero. Raises ValueError for a λ outside of the range."""
    high = RANGES[name]
    if value < 0 or (high is not None and value >= high):
        raise ValueError(f"method.{name}={value}: it must be in [0, {high or '∞'})")
    value = torch.tensor(value, dtype=torch.float64)
    eta = value.expm1().log() if high is None else (value / high).logit()
    limit = OF_UNBOUNDED if high is None else FARTHEST
    return eta.clamp(-limit, limit).float()


class Hyperparameters(nn.Module):
    """η (H,) and the deviations softplus(ς) (H,) of draws around it.

    start: name -> λ at first. scale: the deviation at first. felt: whether layers answer to η; they are told of zeros
    otherwise. `drawn`, (B, H) or None, is what layers and losses of a batch go by.
    """

    def __init__(self, start: Mapping[str, float], scale: float, felt: bool = True) -> None:
        super().__init__()
        self.felt = felt
        self.names = list(start)
        self.eta = nn.Parameter(torch.stack([unproject(value, name) for name, value in start.items()]))
        self.raw_scale = nn.Parameter(torch.full_like(self.eta, scale).expm1().log())
        self.drawn: Tensor | None = None

    @property
    def scale(self) -> Tensor:
        return F.softplus(self.raw_scale)

    def draw(self, samples: int, perturbed: bool = True) -> None:
        """One η for each sample of a batch: drawn, or the same for all."""
        self.drawn = self.eta.expand(samples, -1)
        if perturbed:
            self.drawn = self.drawn + self.scale * torch.randn_like(self.drawn)

    def present(self, samples: int) -> Tensor:
        """η (samples, H) of the batch at hand, for the layers; without a draw, the vector itself."""
        if not self.felt:
            return torch.zeros_like(self.eta).expand(samples, -1)
        return self.eta.expand(samples, -1) if self.drawn is None else self.drawn

    def value(self, name: str) -> Tensor | None:
        """λ of the batch at hand, (B,), or () without a draw; no gradient flows through it. None: it is not tuned."""
        if name not in self.names:
            return None
        eta = self.eta if self.drawn is None else self.drawn
        return project(eta[..., self.names.index(name)], name).detach()

    def entropy(self) -> Tensor:
        """Of the Gaussian around η, a scalar."""
        return (self.scale * (2 * torch.pi * torch.e) ** 0.5).log().sum()

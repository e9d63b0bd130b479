"""A signal on a regular grid, to be written down as a function of its coordinates."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fisherexp.config.types import Count, Positive, Probability, Share
from fisherexp.problems.numerical import Numerical
from fisherexp.seeds import generator


def grid(shape: tuple[int, ...]) -> Tensor:
    """Coordinates in [-1, 1] of every point, shape (prod(shape), len(shape)), the last axis running fastest."""
    axes = [torch.linspace(-1, 1, size) for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


def psnr(found: Tensor, values: Tensor, span: float) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(span² / mean squared error)."""
    return float(10 * torch.log10(span**2 / (found - values).double().square().mean()))


class Signal(Numerical):
    """A subclass makes the signal (`samples`), on a grid. held_out: share of points that are not to be fitted, drawn
    from the run's seed.

    A solution is a function from coordinates (n, d) to values (n, c). Metrics in dB, the peak being the span of the
    signal: psnr at the points to be fitted; held_out_psnr at the others, if there are any.
    """

    provides = ("signal",)
    headings = {"psnr": "PSNR\n(dB)", "held_out_psnr": "held-out\nPSNR (dB)"}
    better = {"psnr": "higher", "held_out_psnr": "higher"}

    def __init__(self, held_out: Share = 0.0) -> None:
        super().__init__()
        self.held_out = held_out

    @abstractmethod
    def samples(self, seed: int) -> Tensor:
        """Values on the grid, in [-1, 1], shape (*grid, channels)."""

    def read(self, seed: int) -> Mapping[str, Tensor]:
        signal = self.samples(seed)
        points = signal[..., 0].numel()
        order = torch.randperm(points, generator=generator("signal held out", seed))
        hidden = torch.zeros(points, dtype=torch.bool)
        hidden[order[: round(self.held_out * points)]] = True
        return {"signal": signal, "coordinates": grid(tuple(signal.shape[:-1])), "hidden": hidden}

    @property
    def fitted(self) -> tuple[Tensor, Tensor]:
        """Coordinates (n, d) and values (n, c) of the points to be fitted."""
        shown = ~self.instance["hidden"]
        return self.instance["coordinates"][shown], self.instance["signal"].flatten(0, -2)[shown]

    def evaluate(self, solution: Callable[[Tensor], Tensor]) -> dict[str, float]:
        signal, hidden = self.instance["signal"].flatten(0, -2), self.instance["hidden"]
        found, span = solution(self.instance["coordinates"]), float(signal.max() - signal.min())
        metrics = {"psnr": psnr(found[~hidden], signal[~hidden], span)}
        if hidden.any():
            metrics["held_out_psnr"] = psnr(found[hidden], signal[hidden], span)
        return metrics

    def about(self) -> dict[str, Any]:
        signal = self.instance["signal"]
        span = float(signal.max() - signal.min())
        return {"shape": list(signal.shape), "psnr_of_the_mean": psnr(signal.mean(), signal, span)}


class BandSignal(Signal):
    """One-dimensional, `n` samples: all frequencies between `low` and `high`, of one magnitude and random phases.

    low, high: as shares of the highest frequency that the samples can hold, n/2 cycles over the whole length.
    """

    def __init__(self, n: Count = 4096, low: Probability = 0.39, high: Positive = 0.78, held_out: Share = 0.0) -> None:
        super().__init__(held_out)
        self.n, self.low, self.high = n, low, high

    def samples(self, seed: int) -> Tensor:
        bins = torch.arange(self.n // 2 + 1)
        chosen = (bins >= self.low * (self.n // 2)) & (bins <= self.high * (self.n // 2)) & (bins > 0)
        if not chosen.any():
            raise ValueError(f"data.high={self.high}: no frequency of {self.n} samples lies between data.low and it")
        phases = 2 * torch.pi * torch.rand(len(bins), generator=generator("signal", seed))
        signal = torch.fft.irfft(torch.polar(chosen.float(), phases), self.n)
        return (signal / signal.abs().max())[:, None]


class DigitSheet(Signal):
    """Two-dimensional: a sheet of side × side images of scikit-learn's digits, 8×8 pixels each, drawn from the seed."""

    def __init__(self, side: Count = 8, held_out: Share = 0.0) -> None:
        super().__init__(held_out)
        self.side = side

    def samples(self, seed: int) -> Tensor:
        from sklearn.datasets import load_digits

        images = torch.from_numpy(load_digits().images).float() / 8 - 1
        chosen = torch.randint(len(images), (self.side, self.side), generator=generator("signal", seed))
        return images[chosen].permute(0, 2, 1, 3).flatten(2, 3).flatten(0, 1)[..., None]

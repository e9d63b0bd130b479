"""Two space-borne gravitational-wave observatories at low frequency: orbits, response tensors, noise.

LISA trails the Earth's orbit; TianQin circles the Earth in a plane normal to the binary RX J0806.3+1527. Each is two
independent Michelson channels. The noise is the effective one averaged over sky and polarization,
S_n = (10 / 3 L²) (…), so that that of a channel is P_n = (3/10) S_n. LISA: Robson, Cornish, Liu, CQG 36 (2019);
TianQin: Huang et al., PRD 102 (2020), with the confusion after five years. Formulas as in the package LEGWORK 1.0 with
`approximate_R=True`. All times are in seconds, all tensors float64.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

YEAR = 365.25 * 86400.0
ASTRONOMICAL_UNIT = 499.005  # light seconds
LIGHT = 299792458.0
TIANQIN_PERIOD = 3.65 * 86400.0
LISA_ARM, TIANQIN_ARM = 2.5e9, math.sqrt(3) * 1e8  # m
# α, β, κ, γ, f_knee of the confusion after so many years
LISA_CONFUSION = {
    0.5: (0.133, 243.0, 482.0, 917.0, 2.58e-3),
    1.0: (0.171, 292.0, 1020.0, 1680.0, 2.15e-3),
    2.0: (0.165, 299.0, 611.0, 1340.0, 1.73e-3),
    4.0: (0.138, -221.0, 521.0, 1680.0, 1.13e-3),
}
TIANQIN_CONFUSION = (-18.6, -1.51, -0.71, -1.13, -0.83, 13.2, -19.1)

Detector = Literal["lisa", "tianqin"]


class Observation(NamedTuple):
    """What a detector does at times `t` (N,).

    place: (N, 3) of its center in light seconds. tensors: (2, 3, 3, N), the two channels' responses to a metric
    perturbation. weights: (N,) seconds of each time; zero while it is off.
    """

    t: Tensor
    place: Tensor
    tensors: Tensor
    weights: Tensor


def observation(detector: Detector, years: float, duty_cycle: bool = True) -> Observation:
    """Times are equally spaced, enough of them for the harmonics of rotation and Doppler shift: 500 a year, 12 a turn.

    duty_cycle: TianQin is off every second quarter of a year.
    """
    span = years * YEAR
    per_year = 500 if detector == "lisa" else math.ceil(12 * YEAR / TIANQIN_PERIOD)
    count = max(64, math.ceil(per_year * years))
    t = (torch.arange(count, dtype=torch.float64) + 0.5) * (span / count)
    turn = 2 * math.pi * t / YEAR
    place = ASTRONOMICAL_UNIT * torch.stack([turn.cos(), turn.sin(), torch.zeros_like(t)], dim=1)
    crafts = _lisa(turn) if detector == "lisa" else _tianqin(t)
    weights = torch.full_like(t, span / count)
    if detector == "tianqin" and duty_cycle:
        weights = torch.where((4 * t / YEAR).floor() % 2 == 0, weights, 0.0)
    return Observation(t, place, _channels(crafts), weights)


def _lisa(turn: Tensor) -> list[Tensor]:
    """Places of three spacecraft (N, 3) around the center of the constellation, to first order in eccentricity."""
    crafts = []
    for number in range(3):
        b = 2 * math.pi * number / 3
        x = (2 * turn - b).cos() - 3 * math.cos(b)
        y = (2 * turn - b).sin() - 3 * math.sin(b)
        crafts.append(torch.stack([x, y, -2 * math.sqrt(3) * (turn - b).cos()], dim=1))
    return crafts


def _tianqin(t: Tensor) -> list[Tensor]:
    lon, lat = math.radians(120.4), math.radians(-4.7)
    along = t.new_tensor([-math.sin(lon), math.cos(lon), 0.0])
    across = t.new_tensor([-math.sin(lat) * math.cos(lon), -math.sin(lat) * math.sin(lon), math.cos(lat)])
    angles = [2 * math.pi * (t / TIANQIN_PERIOD + number / 3) for number in range(3)]
    return [angle.cos()[:, None] * along + angle.sin()[:, None] * across for angle in angles]


def _channels(crafts: list[Tensor]) -> Tensor:
    def arm(a: int, b: int) -> Tensor:
        n = crafts[b] - crafts[a]
        n = n / n.norm(dim=1, keepdim=True)
        return torch.einsum("ti,tj->ijt", n, n)

    first, second, third = arm(0, 1), arm(0, 2), arm(1, 2)
    return torch.stack([(first - second) / 2, (first + second - 2 * third) / (2 * math.sqrt(3))])


def noise(detector: Detector, f: Tensor, years: float, confusion: bool = True) -> Tensor:
    """S_n (1/Hz) at frequencies f (Hz); the confusion is that of the tabulated mission length nearest to `years`."""
    arm = LISA_ARM if detector == "lisa" else TIANQIN_ARM
    relative = f / (LIGHT / (2 * math.pi * arm))
    if detector == "lisa":
        position = 1.5e-11**2 * (1 + (2e-3 / f) ** 4)
        acceleration = 3e-15**2 * (1 + (0.4e-3 / f).square()) * (1 + (f / 8e-3) ** 4)
        instrument = position + 2 * (1 + relative.cos().square()) * acceleration / (2 * math.pi * f) ** 4
    else:
        instrument = 4e-30 / (2 * math.pi * f) ** 4 * (1 + 1e-4 / f) + 1e-24
    result = 10 / (3 * arm**2) * instrument * (1 + 0.6 * relative.square())
    if not confusion:
        return result
    return result + (_lisa_confusion(f, years) if detector == "lisa" else _tianqin_confusion(f))


def _lisa_confusion(f: Tensor, years: float) -> Tensor:
    a, b, k, g, knee = LISA_CONFUSION[min(LISA_CONFUSION, key=lambda length: abs(length - years))]
    decay = (-(f**a) + b * f * (k * f).sin()).exp()
    return 9e-45 * f ** (-7 / 3) * decay * (1 + (g * (knee - f)).tanh())


def _tianqin_confusion(f: Tensor) -> Tensor:
    log_mhz = (1e3 * f).log10()
    exponent = sum(a * log_mhz**i for i, a in enumerate(TIANQIN_CONFUSION))
    return torch.where((f > 1e-4) & (f < 1), 10 ** (2 * exponent), 0.0)

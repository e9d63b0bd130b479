"""Double white dwarfs of a synthetic Galaxy: what a gravitational-wave observatory would see of each."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fisherexp.config.types import Count, Positive
from fisherexp.problems.numerical import Numerical
from fisherexp.seeds import generator

# SI units; masses and radii of the Sun, parsecs in meters.
GRAVITY, LIGHT, KPC = 6.6743e-11, 299792458.0, 3.0856775814913673e19
SUN_MASS, SUN_RADIUS = 1.98841e30, 6.957e8
SUN_TO_CENTER = 8.122  # kpc (GRAVITY collaboration 2018)
DETECTABLE = 7.0  # least signal-to-noise ratio
FACE_ON = 0.9  # from this |cos i| on amplitude and inclination cannot be told apart, and a Fisher matrix means nothing


def white_dwarf_radius(mass: Tensor) -> Tensor:
    """In solar radii, of masses in solar masses: Eggleton's fit (Verbunt, Rappaport, ApJ 332, 1988, eq. 15)."""
    ratio = mass / 1.44
    zero_temperature = 0.0114 * (ratio ** (-2 / 3) - ratio ** (2 / 3)).sqrt()
    return zero_temperature * (1 + 3.5 * (mass / 0.00057) ** (-2 / 3) + 0.00057 / mass) ** (-2 / 3)


def chirp_mass(first: Tensor, second: Tensor) -> Tensor:
    """(m₁ m₂)^(3/5) / (m₁ + m₂)^(1/5), in their unit."""
    return (first * second) ** 0.6 / (first + second) ** 0.2


def amplitude(chirp: Tensor, f: Tensor, distance: Tensor) -> Tensor:
    """2 (G M)^(5/3) (π f)^(2/3) / (c⁴ d), from solar masses, Hz and kpc."""
    return 2 * (GRAVITY * chirp * SUN_MASS) ** (5 / 3) * (math.pi * f) ** (2 / 3) / (LIGHT**4 * distance * KPC)


def frequency_drift(chirp: Tensor, f: Tensor) -> Tensor:
    """df/dt in Hz/s by gravitational waves alone: (96/5) π^(8/3) (G M / c³)^(5/3) f^(11/3)."""
    return 96 / 5 * math.pi ** (8 / 3) * (GRAVITY * chirp * SUN_MASS / LIGHT**3) ** (5 / 3) * f ** (11 / 3)


def separation(total: Tensor, f: Tensor) -> Tensor:
    """Kepler's, in solar radii, of a binary of `total` solar masses that emits at f = 2 / period."""
    return (GRAVITY * total * SUN_MASS / (math.pi * f).square()) ** (1 / 3) / SUN_RADIUS


def _axes() -> Tensor:
    """Rows: directions of the Galactic center, of rotation, of the north pole, in ecliptic coordinates."""
    (lon, lat), (pole_lon, pole_lat) = torch.deg2rad(torch.tensor([[266.84, -5.54], [180.02, 29.81]]).double())
    center = torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()])
    pole = torch.stack([pole_lat.cos() * pole_lon.cos(), pole_lat.cos() * pole_lon.sin(), pole_lat.sin()])
    pole = pole - (pole @ center) * center
    pole = pole / pole.norm()
    return torch.stack([center, torch.linalg.cross(pole, center), pole])


class WhiteDwarfBinaries(Numerical):
    """n binaries, drawn from the run's seed: masses uniform in [0.2, 0.8] solar ones, frequencies of density f^(-11/3)
    from `lowest_mhz` up to contact, places in an exponential disc (scales 2.5 and 0.3 kpc), orientations at random.

    A solution has a signal-to-noise ratio for each ('snr') and errors (see DoubleWhiteDwarf). detected: binaries above
    7; eclipsing: those of them with |cos i| < (R₁ + R₂) / separation. located: detected, with |cos i| < 0.9, to within
    a square degree. Errors are medians over detected binaries with |cos i| < 0.9, absent where there is none.
    """

    name = "white_dwarf_binaries"
    provides = ("white_dwarf_binaries",)
    headings = {"detected": "detected", "eclipsing": "of them\neclipsing", "sky_area": "median\ndeg²"}
    better = {"detected": "higher", "eclipsing": "higher", "located": "higher", "sky_area": "lower"}

    def __init__(self, n: Count = 300, lowest_mhz: Positive = 1.0) -> None:
        super().__init__()
        if lowest_mhz > 10:
            raise ValueError(f"data.lowest_mhz={lowest_mhz:g}: at most 10; hardly any binary is that close")
        self.n, self.lowest_mhz = n, lowest_mhz

    def read(self, seed: int) -> Mapping[str, Tensor]:
        draw = generator("white_dwarf_binaries", seed)
        found: dict[str, Tensor] = {}
        while len(found.get("f", ())) < self.n:
            more = self._drawn(self.n, draw)
            found = {name: torch.cat([found[name], part]) if found else part for name, part in more.items()}
        return {name: part[: self.n] for name, part in found.items()}

    def _drawn(self, count: int, draw: torch.Generator) -> dict[str, Tensor]:
        u = torch.rand(13, count, generator=draw, dtype=torch.float64)
        first, second = 0.2 + 0.6 * u[0], 0.2 + 0.6 * u[1]
        f = 1e-3 * self.lowest_mhz * (1 - u[2]) ** (-3 / 8)
        radius = -2.5 * (u[3] * u[4]).log()  # of density R exp(-R / 2.5)
        height = 0.3 * (u[5].log() - u[6].log())
        around = 2 * math.pi * u[7]
        place = torch.stack([SUN_TO_CENTER - radius * around.cos(), radius * around.sin(), height], dim=1) @ _axes()
        distance = place.norm(dim=1)
        chirp, apart = chirp_mass(first, second), separation(first + second, f)
        radii = white_dwarf_radius(first) + white_dwarf_radius(second)
        cos_i = 2 * u[8] - 1
        binaries = {
            "f": f,
            "fdot": frequency_drift(chirp, f),
            "amplitude": amplitude(chirp, f, distance),
            "phase": 2 * math.pi * u[9],
            "lon": torch.atan2(place[:, 1], place[:, 0]),
            "sin_lat": place[:, 2] / distance,
            "cos_i": cos_i,
            "psi": math.pi * u[10],
            "eclipsing": (cos_i.abs() < radii / apart).double(),
        }
        return {name: part[apart > radii] for name, part in binaries.items()}

    def evaluate(self, solution: Mapping[str, Tensor]) -> dict[str, float]:
        detected = solution["snr"] > DETECTABLE
        eclipsing = self.instance["eclipsing"] > 0
        counts = {"detected": detected.sum(), "eclipsing": (detected & eclipsing).sum()}
        trusted = detected & (self.instance["cos_i"].abs() < FACE_ON)
        counts["located"] = (trusted & (solution["sky_area"] < 1)).sum()
        errors = {name: part[trusted].median() for name, part in solution.items() if name != "snr" and trusted.any()}
        return {name: float(value) for name, value in {**counts, **errors}.items()}

    def about(self) -> dict[str, Any]:
        return {"n": self.n, "lowest_mhz": self.lowest_mhz}

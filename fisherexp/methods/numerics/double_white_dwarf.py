"""Fisher forecast for double white dwarfs: how many a space-borne observatory detects, and how well it measures them.

arXiv 2406.16474 (2024) forecasts eclipsing double white dwarfs for TianQin and LISA from population synthesis; the
binaries here are those of problems/white_dwarf_binaries.py. Signals, detectors and the information they carry are those
of gravitational_response.py and gravitational_detectors.py. Of two observatories the informations add.
"""

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import Positive
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.numerics.gravitational_detectors import YEAR, noise, observation
from fisherexp.methods.numerics.gravitational_response import errors, fisher, integrals
from fisherexp.problems.white_dwarf_binaries import DETECTABLE, WhiteDwarfBinaries

AT_A_TIME = 1000  # binaries at most; their derivatives take 10 kB each
DETECTORS = {"lisa": ("lisa",), "tianqin": ("tianqin",), "joint": ("lisa", "tianqin")}


class DoubleWhiteDwarf(IterativeMethod):
    """A step is the Fisher information of a tenth of the binaries, or of the next thousand.

    detector: lisa, tianqin, or both together. years: T, of the observation. duty_cycle: TianQin is off every second
    quarter of a year. confusion: with the noise of unresolved binaries.

    The solution has for each binary 'snr', and standard deviations: of log_amplitude, phase (rad), frequency and drift
    in units of 1/T and 1/T², lon (rad), sin_lat, cos_i, psi (rad), and sky_area in square degrees. Frequency and phase
    are those at the beginning. errors.png and .pdf show them over frequency, of both together and of either alone.
    """

    paper = "arXiv 2406.16474, 2024"
    problems = ("numerical",)
    requires = ("white_dwarf_binaries",)
    counts_with = {"duty_cycle": {"detector": "tianqin"}}

    problem: WhiteDwarfBinaries

    def __init__(
        self,
        detector: Literal["lisa", "tianqin", "joint"] = "joint",
        years: Positive = 4.0,
        duty_cycle: bool = True,
        confusion: bool = True,
    ) -> None:
        super().__init__()
        if not 0.25 <= years <= 10:
            raise ValueError(f"method.years={years:g}: from 0.25 to 10 years are expected")
        self.detector, self.years, self.duty_cycle, self.confusion = detector, years, duty_cycle, confusion

    def begin(self, problem: WhiteDwarfBinaries, seed: int) -> None:
        super().begin(problem, seed)
        binaries, self.span = problem.instance, self.years * YEAR
        columns = [torch.zeros_like(binaries["f"]), binaries["phase"], binaries["f"] * self.span]
        columns += [binaries["fdot"] * self.span**2, *(binaries[name] for name in ("lon", "sin_lat", "cos_i", "psi"))]
        self.theta = torch.stack(columns, dim=1)
        seen = {name: observation(name, self.years, self.duty_cycle) for name in DETECTORS[self.detector]}
        self.tables = {name: integrals(part, self.span) for name, part in seen.items()}
        self.parts = {name: torch.empty(0, len(columns), len(columns), dtype=torch.float64) for name in seen}

    @property
    def information(self) -> Tensor:
        """(n, 8, 8), of the binaries so far: those of the observatories add."""
        return torch.stack([*self.parts.values()]).sum(0)

    @property
    def done(self) -> bool:
        return len(self.information) == len(self.theta)

    def step(self) -> dict[str, float]:
        first = len(self.information)
        some = slice(first, first + min(AT_A_TIME, math.ceil(len(self.theta) / 10)))
        f, strength = self.problem.instance["f"][some], self.problem.instance["amplitude"][some].square()
        for name, table in self.tables.items():
            per_channel = 0.3 * noise(name, f, self.years, self.confusion)
            gamma = (strength / per_channel)[:, None, None] * fisher(self.theta[some], table)
            self.parts[name] = torch.cat([self.parts[name], gamma])
        return {"binaries": len(self.information), "detected": int((self._snr() > DETECTABLE).sum())}

    def _snr(self) -> Tensor:
        return self.information[:, 0, 0].sqrt()  # ρ² is the information about log A

    def state_dict(self) -> dict[str, Any]:
        return {"parts": dict(self.parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.parts = dict(state["parts"])

    def solution(self) -> dict[str, Tensor]:
        return {"snr": self._snr(), **errors(self.information)}

    def tensors(self) -> dict[str, Tensor]:
        return {"information": self.information, **self.solution()}

    def metrics(self) -> dict[str, float]:
        return {"loudest": float(self._snr().max())}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.numerics.forecast_figure import draw

        every = self.parts if len(self.parts) == 1 else {**self.parts, "joint": self.information}
        found = {name: {"snr": gamma[:, 0, 0].sqrt(), **errors(gamma)} for name, gamma in every.items()}
        binaries = {name: self.problem.instance[name] for name in ("f", "cos_i", "eclipsing")}
        draw(binaries, found, folder / "errors")

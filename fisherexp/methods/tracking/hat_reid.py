"""HATReID: detections are compared where the histories of the present tracks differ most.

    z = P x,    P: Fisher's linear discriminant of the tracks' last features, made anew for every frame
    similarity = mix · s(z, z_track) + (1 - mix) · s(x, x_track),    s: the cosine, or another `matching`

Gao et al.: History-Aware Transformation of ReID Features for Multiple Object Tracking, arXiv 2503.12562; the
discriminant: discriminant.py, the tracker: tracker.py. Options are the authors' by name of data set: 60 features and
factor 4 with mix 0.5, momentum 0.3 and memory 100 on DanceTrack (standardized) and memory 200 on SportsMOT (not); 40
features and factor 5 on MOT17, BDD and TAO. mix=0 is the tracker without the transformation, decay=1 the discriminant
of plain means; between, exponent and matching are variants of the authors' code.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fisherexp.config.types import Count, NonNegative, Probability, Size
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.tracking.tracker import Rules, Track, followed
from fisherexp.problems.tracking import Tracking


class HATReID(IterativeMethod):
    """A step is a frame. Options: see Rules.

    tracks.png and .pdf show every identity over time, a color for each track, and the features of the last frames
    before and after the transformation.
    """

    name = "hat_reid"
    paper = "Gao et al., arXiv 2503.12562"
    problems = ("numerical",)
    requires = ("detections",)

    # At home no identity is ever lost; where the disturbance is there from the start, all options show.
    counts_with = {
        "history": {"/data.calm": 0, "history": 5},
        "factor": {"/data.calm": 0},
        "decay": {"/data.calm": 0},
        "standardize": {"/data.calm": 0},
        "momentum": {"/data.calm": 0},
        "memory": {"/data.calm": 0, "threshold": 0.95, "memory": 0},
        "threshold": {"/data.calm": 0, "threshold": 0.95},
        # Pairs of equally long tracks are the means over again, and where all are told apart, the mean matches as well.
        "between": {"/data.calm": 0, "between": "remainder"},
        "matching": {"matching": "bisoftmax"},
        "exponent": {"/data.calm": 0},
    }

    problem: Tracking

    def __init__(
        self,
        history: Count = 60,
        factor: NonNegative = 4.0,
        mix: Probability = 1.0,
        decay: Probability = 0.9,
        standardize: bool = False,
        momentum: Probability = 0.8,
        memory: Size = 10,
        threshold: float = 0.5,
        between: Literal["means", "pairs", "similar_pairs", "remainder"] = "means",
        exponent: NonNegative = 1.0,
        matching: Literal["cosine", "bisoftmax", "mean"] = "cosine",
    ) -> None:
        super().__init__()
        if decay == 0:
            raise ValueError("method.decay=0.0: all features of a track would weigh nothing; method.decay=0.9")
        variants = (between, exponent, matching)
        self.rules = Rules(history, factor, mix, decay, standardize, momentum, memory, threshold, *variants)

    def begin(self, problem: Tracking, seed: int) -> None:
        super().begin(problem, seed)
        features, frames, _ = problem.detections
        self.features, self.frames = features.numpy(), frames.numpy()
        self.present = np.unique(self.frames)
        self.tracks: list[Track] = []
        self.numbers: list[int] = []
        self.begun = self.passed = 0

    @property
    def done(self) -> bool:
        return self.passed == len(self.present)

    def step(self) -> dict[str, float]:
        frame = int(self.present[self.passed])
        seen = self.features[self.frames == frame]
        numbers, self.tracks = followed(self.tracks, seen, frame, self.begun, self.rules)
        self.numbers += numbers
        self.passed += 1
        new = sum(number >= self.begun for number in numbers)
        self.begun += new
        self.outcome = {"tracks": self.begun}
        return {"tracks": self.begun, "new": new}

    def state_dict(self) -> dict[str, Any]:
        tracks = [asdict(track) for track in self.tracks]
        for track in tracks:
            track["appearance"] = torch.from_numpy(track["appearance"])
            track["history"] = torch.from_numpy(np.stack(track["history"]))
        return {"tracks": tracks, "numbers": self.numbers, "begun": self.begun, "passed": self.passed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tracks = [
            Track(kept["number"], kept["appearance"].numpy(), kept["seen"], list(kept["history"].numpy()))
            for kept in state["tracks"]
        ]
        self.numbers, self.begun, self.passed = state["numbers"], state["begun"], state["passed"]
        self.outcome = {"tracks": self.begun}

    def solution(self) -> Tensor:
        return torch.tensor(self.numbers)

    def tensors(self) -> dict[str, Tensor]:
        return {"tracks": self.solution()}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.tracking.track_figure import draw

        draw(self.problem.detections, self.solution(), self.rules, folder / "tracks")

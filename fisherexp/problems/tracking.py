"""Detections of a video to be joined to tracks by what they look like."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fisherexp.config.locations import user_file
from fisherexp.config.types import Count, NonNegative, Size
from fisherexp.data.errors import DataError
from fisherexp.data.tracks import Detections, read_tracks, synthetic_tracks
from fisherexp.metrics.tracking import association_accuracy, idf1, switches, together
from fisherexp.problems.numerical import Numerical
from fisherexp.seeds import generator


class Tracking(Numerical):
    """A solution is the number of a track for each detection, (n,) int64.

    Metrics in %, of association alone since all detections are given: hota, idf1; and switches, how often an identity
    goes on in another track.
    """

    provides = ("detections",)
    headings = {"hota": "HOTA", "idf1": "IDF1", "switches": "identity\nswitches"}
    better = {"hota": "higher", "idf1": "higher", "switches": "lower"}

    @abstractmethod
    def draw(self, seed: int) -> Detections:
        """The detections of a seed. Raises DataError, in one line, for what the user can put right."""

    def read(self, seed: int) -> Mapping[str, Tensor]:
        return self.draw(seed)._asdict()

    @property
    def detections(self) -> Detections:
        """Once loaded."""
        return Detections(**self.instance)

    def evaluate(self, solution: Tensor) -> dict[str, float]:
        identities = self.detections.identities
        counts = together(identities, solution)
        return {
            "hota": 100 * association_accuracy(counts) ** 0.5,
            "idf1": 100 * idf1(counts),
            "switches": float(switches(identities, solution)),
        }

    def about(self) -> dict[str, Any]:
        features, frames, identities = self.detections
        sizes = {"frames": len(frames.unique()), "identities": len(identities.unique())}
        return {"detections": len(features), "dimension": features.shape[1], **sizes}


class SyntheticTracks(Tracking):
    """Every one of `identities` in every one of `frames`; features of length 1.

    dimension: d. nuisance: strength of six directions, shared by all, in which every detection moves at random; it
    rises to this over the first `calm` frames. drift: how far an identity's mean moves in each frame.
    """

    def __init__(
        self,
        identities: Count = 16,
        frames: Count = 60,
        dimension: Count = 64,
        nuisance: NonNegative = 0.3,
        calm: Size = 20,
        drift: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        self.sizes = {"identities": identities, "frames": frames, "dimension": dimension, "calm": calm}
        self.nuisance, self.drift = nuisance, drift

    def draw(self, seed: int) -> Detections:
        draws = generator("synthetic_tracks", seed)
        return synthetic_tracks(**self.sizes, nuisance=self.nuisance, drift=self.drift, generator=draws)


class TrackFile(Tracking):
    """The user's own detections.

    path: an .npz file with features (n, d), frames (n,) and identities (n,), or, with `features`, the text file of the
    MOT challenges (gt.txt). features: a .npy file (n, d) of a feature for each line of it. Both are absolute, in the
    working directory or in the data folder. root: see LabeledData.
    """

    paths = ("path", "features")

    def __init__(self, path: str, features: str | None = None, root: str | None = None) -> None:
        super().__init__()
        self.files, self.root = {"path": path, "features": features}, root

    def draw(self, seed: int) -> Detections:
        found = {}
        for option, path in self.files.items():
            try:
                found[option] = None if path is None else user_file(path, self.root)
            except FileNotFoundError as error:
                raise DataError(f"data.{option}={path}: {error}") from None
        return read_tracks(**found)

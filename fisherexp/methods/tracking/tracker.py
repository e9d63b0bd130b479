"""Detections matched to tracks by how they look, in the space that tells the present tracks apart.

A detection joins a track where the assignment of all of them at once (Hungarian) says so and their similarity exceeds a
threshold; else it begins a track. A track's appearance is a moving average of its features, its history the last ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import softmax

from fisherexp.methods.tracking.discriminant import Between, cosine, projection, scatter

Matching = Literal["cosine", "bisoftmax", "mean"]


@dataclass(frozen=True)
class Rules:
    """history: features kept of a track. factor: the transformation waits for more than `factor` features a track.
    mix: share of the transformed similarity; 0 leaves the plain one. decay: of the weights, see recency_weights.
    standardize: features by the mean and deviation of all histories, before all else. momentum: share of the newest
    feature in a track's appearance. memory: frames a track may stay unseen. threshold: of the similarity.
    between, exponent: of the discriminant, see `scatter`. matching: cosine, bisoftmax (see `likeness`), or the mean of
    both.
    """

    history: int = 60
    factor: float = 4
    mix: float = 1.0
    decay: float = 0.9
    standardize: bool = False
    momentum: float = 0.8
    memory: int = 10
    threshold: float = 0.5
    between: Between = "means"
    exponent: float = 1.0
    matching: Matching = "cosine"


@dataclass
class Track:
    """appearance: (d,). history: features (d,), oldest first. seen: the last frame it was in."""

    number: int
    appearance: np.ndarray
    seen: int
    history: list[np.ndarray] = field(default_factory=list)


def likeness(one: np.ndarray, other: np.ndarray, matching: Matching) -> np.ndarray:
    """Between rows: (n, d), (m, d) -> (n, m). The bidirectional softmax (Pang et al., CVPR 2021, arXiv 2006.06664) is
    the mean of the softmax of inner products over either side: high where each is the other's first choice."""
    if matching == "cosine":
        return cosine(one, other)
    products = one @ other.T
    both = (softmax(products, axis=1) + softmax(products, axis=0)) / 2
    return both if matching == "bisoftmax" else (both + cosine(one, other)) / 2


def transformed(histories: Sequence[np.ndarray], parts: Sequence[np.ndarray], rules: Rules) -> list[np.ndarray] | None:
    """Each of `parts`, features (n, d), in the discriminant space of the histories; None where they say too little:
    fewer than two tracks, or not more than `factor` features for each."""
    count = len(histories)
    if count < 2 or sum(map(len, histories)) <= rules.factor * count:
        return None
    if rules.standardize:
        everything = np.concatenate(histories)
        mean, scale = everything.mean(axis=0), everything.std(axis=0)
        scale[scale == 0] = 1
        histories = [(part - mean) / scale for part in histories]
        parts = [(part - mean) / scale for part in parts]
    found = scatter(histories, rules.decay, between=rules.between, exponent=rules.exponent)
    axes = projection(found, min(count - 1, parts[0].shape[1]))
    return [part @ axes for part in parts]


def similarity(features: np.ndarray, tracks: Sequence[Track], rules: Rules) -> np.ndarray:
    """Of detections (n, d) and tracks: (n, tracks), within [-1, 1]; of `matching` bisoftmax within [0, 1]."""
    appearances = np.stack([track.appearance for track in tracks])
    plain = likeness(features, appearances, rules.matching)
    parts = None
    if rules.mix > 0:
        parts = transformed([np.stack(track.history) for track in tracks], [features, appearances], rules)
    if parts is None:
        return plain
    return rules.mix * likeness(*parts, rules.matching) + (1 - rules.mix) * plain


def assigned(similarities: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Pairs of detection and track whose similarities have the largest sum, of those above the threshold."""
    pairs = zip(*linear_sum_assignment(similarities, maximize=True), strict=True)
    return [(int(i), int(j)) for i, j in pairs if similarities[i, j] > threshold]


def renewed(track: Track, feature: np.ndarray, frame: int, rules: Rules) -> Track:
    """The track after it was seen in this frame."""
    appearance = (1 - rules.momentum) * track.appearance + rules.momentum * feature
    return Track(track.number, appearance, frame, [*track.history, feature][-rules.history :])


def followed(
    tracks: Sequence[Track], features: np.ndarray, frame: int, begun: int, rules: Rules
) -> tuple[list[int], list[Track]]:
    """One frame: the track number of each detection (n, d), and the tracks for the next one.

    begun: how many tracks there have been: numbers of new ones go on from it.
    """
    alive = [track for track in tracks if frame - track.seen <= rules.memory]
    pairs = assigned(similarity(features, alive, rules), rules.threshold) if alive and len(features) else []
    numbers, joined = [-1] * len(features), {}
    for detection, place in pairs:
        numbers[detection] = alive[place].number
        joined[place] = renewed(alive[place], features[detection], frame, rules)
    after = [joined.get(place, track) for place, track in enumerate(alive)]
    for detection, feature in enumerate(features):
        if numbers[detection] < 0:
            numbers[detection] = begun
            after.append(Track(begun, feature, frame, [feature]))
            begun += 1
    return numbers, after

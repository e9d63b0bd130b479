"""Association metrics: by hand, and against TrackEval where it is installed."""

import math

import numpy as np
import pytest
import torch

from fisherexp.metrics.tracking import association_accuracy, idf1, switches, together

IDENTITIES = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])


def test_counts_and_figures_by_hand():
    tracks = torch.tensor([5, 7, 5, 7, 7, 5, 7, 5])  # the two change places half-way
    counts = together(IDENTITIES, tracks)
    assert counts.tolist() == [[2, 2], [2, 2]]
    assert association_accuracy(counts) == pytest.approx(2 / 6)
    assert idf1(counts) == 0.5
    assert switches(IDENTITIES, tracks) == 2
    perfect = together(IDENTITIES, IDENTITIES + 3)
    assert association_accuracy(perfect) == idf1(perfect) == 1
    assert switches(IDENTITIES, IDENTITIES) == 0
    alone = torch.arange(8)  # a track for each detection
    assert association_accuracy(together(IDENTITIES, alone)) == idf1(together(IDENTITIES, alone)) == 0.25


def test_figures_are_trackevals():
    metrics = pytest.importorskip("trackeval", reason="pip install 'fisherexp[tracking]'").metrics
    draws = np.random.default_rng(0)
    identities = np.tile(np.arange(5), 12)
    tracks = np.concatenate([draws.permutation(7)[:5] for _ in range(12)])
    _, ours = np.unique(tracks, return_inverse=True)
    frames = [slice(5 * t, 5 * t + 5) for t in range(12)]
    data = {
        "num_gt_dets": 60,
        "num_tracker_dets": 60,
        "num_gt_ids": 5,
        "num_tracker_ids": int(ours.max()) + 1,
        "num_timesteps": 12,
        "gt_ids": [identities[part] for part in frames],
        "tracker_ids": [ours[part] for part in frames],
        "similarity_scores": [np.eye(5)] * 12,
    }
    counts = together(torch.from_numpy(identities), torch.from_numpy(tracks))
    hota = metrics.HOTA().eval_sequence(data)
    assert association_accuracy(counts) == pytest.approx(float(hota["AssA"][0]))
    assert math.sqrt(association_accuracy(counts)) == pytest.approx(float(hota["HOTA"][0]))
    assert idf1(counts) == pytest.approx(float(metrics.Identity().eval_sequence(data)["IDF1"]))

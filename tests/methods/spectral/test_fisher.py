"""The figures of a Fisher study against their definitions."""

import pytest
import torch

from fisherexp.curvature import Estimator, FisherDiagonal
from fisherexp.methods.spectral.fisher import Fisher, spectrum, trace_by_layer

VALUES = {"a": torch.tensor([[1.0, 0.0], [5.0, 2.0]]), "b": torch.tensor([2.0])}
FISHER = FisherDiagonal(VALUES, Estimator("empirical", "per_sample", "cross_entropy"), 7)


def test_mass_and_spectrum():
    assert trace_by_layer(FISHER) == pytest.approx({"a": 0.8, "b": 0.2})
    assert spectrum(FISHER).tolist() == [5.0, 2.0, 2.0, 1.0, 0.0]
    nothing = FISHER.map(torch.zeros_like)
    assert trace_by_layer(nothing) == {"a": 0.0, "b": 0.0}


def test_what_it_leaves(tmp_path):
    method = Fisher(torch.nn.Linear(2, 2), importance=None)
    method.given["fisher"] = FISHER
    method.leave_files(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"fisher.safetensors", "fisher.png", "fisher.pdf"}
    loaded = FisherDiagonal.load(tmp_path / "fisher.safetensors")
    assert all(torch.equal(loaded[name], FISHER[name]) for name in FISHER)
    assert method.outcome["trace"] == pytest.approx(10.0)
    assert method.outcome["zero_share"] == pytest.approx(0.2)
    assert method.outcome["quantiles"]["0.5"] == 2.0

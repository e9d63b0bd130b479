"""Fits to features: those of SciPy and of the method for directions, class by class, and what the study leaves."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from torch import nn

from fisherexp.methods.numerics.von_mises_fisher import VonMisesFisher
from fisherexp.methods.spectral import feature_directions as study
from fisherexp.methods.spectral.feature_directions import FeatureDirections, Features, Seen, directions, fit_classes
from fisherexp.problems.directions import DirectionFile
from fisherexp.special import von_mises_fisher as vmf

NAMES, CONCENTRATIONS = ["cat", "dog", "owl"], [5.0, 60.0, 900.0]


@pytest.fixture(scope="module")
def seen():
    """Features of any length whose directions are drawn, in 8 dimensions, around three coordinate axes."""
    draw, parts = torch.Generator().manual_seed(0), []
    for count in (300, 100):
        drawn = [vmf.sample(torch.eye(8).double()[c], kappa, count, draw) for c, kappa in enumerate(CONCENTRATIONS)]
        lengths = 1 + torch.rand(3 * count, 1, generator=draw, dtype=torch.float64)
        parts.append((torch.cat(drawn) * lengths, torch.arange(3).repeat_interleave(count)))
    return Seen(*parts, NAMES)


def left(seen, folder, **options):
    method = FeatureDirections(nn.Linear(1, 1), **options)
    method.given["features"] = seen
    method.leave_files(folder)
    return method.outcome


def test_fits_are_scipys_and_those_of_the_method_for_directions(seen, tmp_path):
    features, labels = seen.train
    fits = fit_classes(directions(features), labels, NAMES)
    for c in range(3):
        members = features[labels == c].numpy()
        mean, kappa = stats.vonmises_fisher.fit(members / np.linalg.norm(members, axis=1, keepdims=True))
        torch.testing.assert_close(fits.means[c], torch.from_numpy(mean), rtol=0, atol=1e-12)
        assert float(fits.concentrations[c]) == pytest.approx(kappa, rel=1e-7)
        np.savez(tmp_path / "own.npz", train=members, test=members)
        alone = VonMisesFisher()
        alone.begin(DirectionFile(str(tmp_path / "own.npz")).load(0), 0)
        while not alone.done:
            alone.step()
        assert float(fits.concentrations[c]) == pytest.approx(float(alone.solution()[1]), rel=1e-12)
    torch.testing.assert_close(fits.concentrations, torch.tensor(CONCENTRATIONS).double(), rtol=0.2, atol=0)
    mixed = fit_classes(directions(features), labels.roll(150), NAMES)  # the control
    assert (mixed.concentrations < 10).all()


def test_densities_are_those_of_each_class(seen):
    fits, test = fit_classes(directions(seen.train[0]), seen.train[1], NAMES), directions(seen.test[0])
    expected = [vmf.log_density(test, *pair) for pair in zip(fits.means, fits.concentrations, strict=True)]
    torch.testing.assert_close(fits.log_densities(test), torch.stack(expected, 1), rtol=1e-12, atol=1e-12)


def test_what_it_leaves(seen, tmp_path, monkeypatch):
    found = left(seen, tmp_path)
    files = {f"feature_directions.{kind}" for kind in ("safetensors", "png", "pdf")}
    assert {file.name for file in tmp_path.iterdir()} == files
    kept = load_file(tmp_path / "feature_directions.safetensors")
    assert [found["classes"][name]["concentration"] for name in NAMES] == kept["concentrations"].tolist()
    resultants = [directions(seen.train[0])[seen.train[1] == c].mean(0).norm().item() for c in range(3)]
    assert [found["classes"][name]["resultant_length"] for name in NAMES] == pytest.approx(resultants, rel=1e-12)
    assert {each["samples"] for each in found["classes"].values()} == {300}
    assert found["accuracy"] > 90
    assert found["held_out_log_likelihood"] > found["uniform_log_likelihood"] + 1
    monkeypatch.setattr(study, "draw", lambda *figure: None)
    wrong = seen._replace(test=(seen.test[0], seen.test[1].roll(100)))
    assert left(wrong, tmp_path)["accuracy"] < 10


def test_centered_directions_do_not_feel_a_shift_of_all_features(seen, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "draw", lambda *figure: None)
    shifted = Seen(*((features + 50, labels) for features, labels in seen[:2]), NAMES)
    centered = [left(some, tmp_path, centered=True)["held_out_log_likelihood"] for some in (seen, shifted)]
    assert centered[0] == pytest.approx(centered[1], rel=1e-9)
    plain = [left(some, tmp_path)["held_out_log_likelihood"] for some in (seen, shifted)]
    assert plain[0] != pytest.approx(plain[1], rel=0.1)


def test_what_has_no_direction_or_no_finite_concentration_is_refused(seen):
    features, labels = seen.train
    with pytest.raises(ValueError, match="2 of 3 features are zero"):
        directions(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
    for few in (labels < 2, (labels < 2) | (torch.arange(900) == 700)):
        with pytest.raises(ValueError, match=r"class owl: [01] training samples"):
            fit_classes(directions(features[few]), labels[few], NAMES)
    bench = SimpleNamespace(setting=SimpleNamespace(parts={"train": SimpleNamespace(weights=torch.ones(3))}))
    with pytest.raises(ValueError, match="have weights"):
        Features().resolve(bench, FeatureDirections(nn.Linear(1, 1)), None)

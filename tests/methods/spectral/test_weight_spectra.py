"""The study of weight spectra: its table and figures say what the pure functions find, layer by layer."""

import csv

import pytest
import torch
from torch import nn

from fisherexp.methods.spectral.spectra_figure import without_common_parts
from fisherexp.methods.spectral.weight_spectra import ESTIMATORS, WeightSpectra, shuffled
from fisherexp.metrics.fixed_aspect import eigenvalues, pooled
from fisherexp.metrics.power_law import fit

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(48, 30), nn.Conv2d(12, 16, 3), nn.Linear(40, 4))
MODEL.head = nn.Linear(30, 20)


@pytest.fixture(scope="module")
def study():
    method = WeightSpectra(MODEL, resamples=20)
    method.look()
    return method


def test_each_layer_has_what_the_functions_find(study):
    layers = study.outcome["layers"]
    assert list(layers) == ["0", "1"]
    assert study.outcome["left_out"] == ["2"]
    kernel = MODEL[1].weight.detach()
    assert (layers["1"]["rows"], layers["1"]["columns"], layers["1"]["eigenvalues"]) == (16, 108, 16)
    whole, of_windows = eigenvalues(kernel.flatten(1)), pooled(kernel)
    expected = {"hill": fit(whole), "ks": fit(whole, "ks"), "farms": fit(of_windows)}
    for name, found in expected.items():
        assert layers["1"][name]["alpha"] == pytest.approx(float(found.alpha))
        assert layers["1"][name]["low"] < layers["1"][name]["high"]
    alphas = [layers[name]["ks"]["alpha"] for name in layers]
    assert study.outcome["metrics"]["alpha_ks"] == pytest.approx(sum(alphas) / 2)
    assert study.outcome["metrics"]["spread_ks"] == pytest.approx(abs(alphas[0] - alphas[1]))


def test_it_leaves_a_row_for_each_layer_and_estimator(study, tmp_path):
    study.leave_files(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".csv", ".png", ".pdf"}
    rows = list(csv.DictReader((tmp_path / "weight_spectra.csv").open(encoding="utf-8")))
    assert [(row["layer"], row["estimator"]) for row in rows] == [(n, e) for n in ("0", "1") for e in ESTIMATORS]
    assert float(rows[1]["alpha"]) == pytest.approx(study.outcome["layers"]["0"]["ks"]["alpha"], rel=1e-5)


def test_shuffled_weights_are_a_null():
    """Order is all that makes a low-rank layer: its α is far from the null's, that of noise is not."""
    draws = torch.Generator().manual_seed(0)
    noise = torch.randn(40, 60, generator=draws)
    low = torch.randn(40, 3, generator=draws) @ torch.randn(3, 60, generator=draws) + 0.1 * noise
    assert torch.equal(shuffled(noise, 0).flatten().sort().values, noise.flatten().sort().values)
    gaps = [abs(float(fit(pooled(w)).alpha - fit(pooled(shuffled(w, 0))).alpha)) for w in (low, noise)]
    assert gaps[0] > 0.3 > 0.1 > gaps[1]


def test_a_model_of_small_layers_is_refused():
    with pytest.raises(ValueError, match=r"method.fewest=10: the most eigenvalues has layer 0, 6"):
        WeightSpectra(nn.Sequential(nn.Linear(30, 6), nn.Linear(6, 4)))


def test_a_model_of_low_rank_layers_is_refused_and_one_such_layer_left_out():
    model = nn.Sequential(nn.Linear(48, 30), nn.Linear(40, 30))
    with torch.no_grad():
        model[0].weight.copy_(torch.outer(torch.arange(30.0), torch.arange(48.0)))
    method = WeightSpectra(model, resamples=5)
    method.look()
    assert method.outcome["left_out"] == ["0"]
    nn.init.zeros_(model[1].weight)
    with pytest.raises(ValueError, match=r"method.fewest=10: the most eigenvalues that are not zero has layer 0, 1"):
        method.look()


def test_pictures_name_layers_by_what_tells_them_apart():
    names = ["net.encoder.0.query", "net.encoder.10.query", "net.embed"]
    assert list(without_common_parts(names).values()) == ["encoder.0.query", "encoder.10.query", "embed"]
    assert without_common_parts(["net.layers.3"]) == {"net.layers.3": "3"}

"""Layer-wise pruning by spectra: the allocation reaches its target, and layers with larger α lose more."""

import pytest
import torch

from fisherexp.methods.compression.allocation import counts, sparsities
from fisherexp.methods.spectral.layer_exponents import along, exponents
from fisherexp.metrics.fixed_aspect import eigenvalues, pooled
from fisherexp.metrics.power_law import fit

SIZES = torch.tensor([4000, 100, 900])


@pytest.mark.parametrize("target", [0.1, 0.5, 0.9, 0.97])
def test_all_layers_together_reach_the_target(target):
    found = sparsities(torch.tensor([0.6, 1.4, 1.2]), SIZES, target)
    assert float((found * SIZES).sum() / SIZES.sum()) == pytest.approx(target, abs=1e-12)
    assert (found <= 0.998).all()
    assert int(counts(found, SIZES).sum()) == round(target * 5000)
    if target < 0.7:  # without the cap they stand to each other as asked for
        assert float(found[1] / found[0]) == pytest.approx(1.4 / 0.6)
    else:
        assert float(found[1]) == pytest.approx(0.998)


def test_a_target_beyond_the_cap_is_reached_by_all_alike():
    assert sparsities(torch.tensor([0.5, 2.0]), torch.tensor([10, 10]), 0.999).tolist() == [0.999, 0.999]


def test_numbers_along_a_line_hit_its_ends():
    found = along({"a": 2.0, "b": 6.0, "c": 3.0, "d": None}, 0.5, 1.5)
    assert found == {"a": 0.5, "b": 1.5, "c": 0.75, "d": 1.0}
    assert along({"a": None, "b": 3.0}, 0.7, 1.3) == {"a": 1.0, "b": 1.0}


def test_exponents_are_of_whole_matrices_or_of_windows():
    torch.manual_seed(0)
    noise = {"square": torch.randn(64, 64), "long": torch.randn(512, 32), "kernel": torch.randn(32, 24, 3, 3)}
    whole, farms = exponents(noise, "whole"), exponents(noise, "farms")
    assert whole["kernel"] == pytest.approx(float(fit(eigenvalues(noise["kernel"].flatten(1))).alpha))
    assert max(whole.values()) - min(whole.values()) > 2
    assert max(farms.values()) - min(farms.values()) < 0.15
    assert exponents(noise, fewest=40) == {"square": farms["square"], "long": None, "kernel": None}


@pytest.mark.parametrize("estimator", ["hill", "ks", "peak"])
def test_equal_eigenvalues_have_no_exponent_and_leave_the_others_theirs(estimator):
    """As an identity's: infinite, it would take the place of every other layer."""
    noise = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
    found = exponents(
        {"one": torch.eye(20), "noise": noise, "half": torch.cat([noise[:10], noise[:10]])},
        "whole",
        estimator=estimator,
    )
    assert found["one"] is None
    assert 0 < along(found, 0.5, 1.5)["noise"] != along(found, 0.5, 1.5)["half"]


@pytest.mark.parametrize("estimator", ["hill", "ks", "peak"])
def test_exponents_are_by_the_estimator_that_is_asked_for(estimator):
    torch.manual_seed(0)
    weight = torch.randn(48, 32) @ torch.randn(32, 40)
    found = exponents({"a": weight}, estimator=estimator)["a"]
    assert found == float(fit(pooled(weight), estimator).alpha)
    assert all(found != float(fit(pooled(weight), other).alpha) for other in {"hill", "ks", "peak"} - {estimator})


UNTUNED = "method.finetune.epochs=0"


def test_layers_of_larger_alpha_lose_more(pruned):
    kept = {}
    for by in ("farms", "whole", "uniform"):
        options = [f"method.by={by}", "method.fewest=10", "method.sparsities=[0.3,0.6]", UNTUNED]
        fit_, before, _ = pruned("farms_pruning", *options)
        share = {n: fit_.outcome["kept_by_layer"][n] / w.numel() for n, w in fit_.weights.items()}
        kept[by] = (fit_.outcome["kept"], share, fit_.outcome["alpha_by_layer"])
        after = torch.cat([w.detach().flatten() for w in fit_.weights.values()])
        assert torch.equal(after[fit_.kept], before[fit_.kept])
        first = slice(0, next(iter(fit_.weights.values())).numel())  # the smallest of each layer are gone
        assert before[first][fit_.kept[first]].abs().min() >= before[first][~fit_.kept[first]].abs().max()
    assert {found[0] for found in kept.values()} == {round(0.4 * len(fit_.kept))}
    assert max(kept["uniform"][1].values()) - min(kept["uniform"][1].values()) < 0.01
    for by in ("farms", "whole"):
        _, share, alphas = kept[by]
        rising = sorted(alphas, key=alphas.get)
        assert share[rising[0]] > share[rising[-1]] + 0.1


def test_another_estimator_of_alpha_prunes_layers_by_other_shares(pruned):
    """Of three layers: the smallest and the largest α have their ratios by `spread`, the one between by its α."""
    kept = {}
    for fit_by in ("hill", "ks", "peak", "hill"):
        options = [f"method.fit={fit_by}", "method.fewest=10", "method.sparsities=[0.5]", UNTUNED]
        found = pruned("farms_pruning", *options)[0].outcome["kept_by_layer"]
        assert kept.setdefault(fit_by, found) == found
    assert sum(kept["hill"].values()) == sum(kept["ks"].values()) == sum(kept["peak"].values())
    assert kept["ks"] != kept["hill"] != kept["peak"]

"""Small-scale proofs of the merging wing on digits, in the settings of the experiments that bear these names."""

import statistics
from itertools import pairwise

import pytest

from fisherexp.config.explain import composed
from fisherexp.experiment import run_experiment

pytestmark = pytest.mark.proof

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """One record for each seed; sources and experts are shared by all tests."""
    output_dir = tmp_path_factory.mktemp("proof")

    def run(*overrides: str) -> list[dict]:
        found = []
        for seed in SEEDS:
            options = [*overrides, f"seed={seed}", f"output_dir={output_dir}", "progress=off", "threads=1"]
            found.append(run_experiment(composed(options), output_dir / "run", options))
        return found

    return run


def mean(records: list[dict], metric: str = "mean_accuracy", stage: str = "after") -> float:
    return statistics.fmean(record["metrics"][stage][metric] for record in records)


@pytest.mark.parametrize("shared", [20, 60])
def test_regmean_then_fisher_then_the_mean(records, shared):
    """Input correlations help most, the Fisher helps, and all of it stays below training on all tasks."""
    options = ["experiment=merging_digits", f"scenario.shared={shared}"]
    methods = ("multitask", "regmean", "fisher_merging", "average")
    found = [mean(records(*options, f"method={method}")) for method in methods]
    assert found == sorted(found, reverse=True)
    assert min(one - other for one, other in pairwise(found)) >= 2
    assert found[1] >= 80


def test_matching_removes_the_barrier(records):
    for record in records("experiment=matching_digits", "model.hidden=[128,128]"):
        outcome = record["outcome"]
        assert outcome["barrier"]["matched"] <= 0.1 * outcome["barrier"]["naive"]
        assert outcome["distance"]["matched"] > 0.6 * outcome["distance"]["naive"]
        alignment = outcome["alignment"]
        gains = {t: alignment["matched"][t] - alignment["naive"][t] for t in ("0.0", "0.3")}
        assert gains["0.3"] > 1.5 * gains["0.0"]


def test_a_signature_makes_a_clean_model_robust(records):
    """The expert of clean digits, and the same with half of the patch and all of it: contrast and fog gained step by
    step, clean digits hardly lost. The margins are about half of what the whole patch is worth under a corruption."""
    options = ["experiment=merging_corrupted_digits", "method=robust_weight_signatures"]
    clean, half, patched = (records(*options, f"method.alphas=[{alpha}]") for alpha in (0.0, 0.5, 1.0))
    for corruption, gain in (("contrast", 25), ("fog", 20)):
        found = [mean(runs, f"{corruption}_accuracy") for runs in (clean, half, patched)]
        assert found == sorted(found), corruption
        assert found[-1] - found[0] >= gain, corruption
    assert mean(clean, "plain_accuracy") - mean(patched, "plain_accuracy") <= 6


def test_three_convolutional_networks_become_one_with_fresh_statistics(records):
    """Matching and BatchNorm's statistics taken anew are both needed: without the first a barrier of more than a nat
    stays, without the second most of it comes back, and the mean of three networks is hardly better than chance."""
    fresh, averaged = (
        records("experiment=matching_digits_cnn", f"method.batch_norm={choice}") for choice in ("recompute", "average")
    )
    for anew, kept in zip(fresh, averaged, strict=True):
        assert anew["outcome"]["barrier"]["matched"] <= 0.15 * anew["outcome"]["barrier"]["naive"]
        assert kept["outcome"]["barrier"]["matched"] >= 4 * anew["outcome"]["barrier"]["matched"]
        assert anew["outcome"]["mean_accuracy"]["matched"] >= 90
        assert max(kept["outcome"]["mean_accuracy"]["matched"], anew["outcome"]["mean_accuracy"]["naive"]) <= 60

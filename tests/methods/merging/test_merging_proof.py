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
    """The expert of clean digits, and the same with the patch: contrast gained, clean digits hardly lost."""
    options = ["experiment=merging_corrupted_digits"]
    clean = records(*options, "method=wise_ft", "method.alphas=[1.0]")
    patched = records(*options, "method=robust_weight_signatures", "method.alphas=[1.0]")
    assert mean(patched, "contrast_accuracy") - mean(clean, "contrast_accuracy") >= 40
    assert mean(clean, "plain_accuracy") - mean(patched, "plain_accuracy") <= 6

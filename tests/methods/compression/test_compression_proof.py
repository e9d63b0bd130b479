"""Small-scale proofs on digits: recomputed optimal brain surgery keeps what magnitude and the diagonal lose."""

from statistics import fmean

import pytest

from fisherexp.config.explain import composed
from fisherexp.runs.workbench import Workbench

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Metrics after a method of an experiment, and its outcome, for seeds 0, 1, 2."""
    output_dir = tmp_path_factory.mktemp("proof")

    def run(experiment: str, method: str, *overrides: str) -> list[dict]:
        found = []
        for seed in (0, 1, 2):
            options = [f"experiment={experiment}", f"method={method}", f"seed={seed}", *overrides]
            bench = Workbench(composed([*options, f"output_dir={output_dir}", "progress=off"]))
            fit = bench.method("method")
            fit.model.load_state_dict(bench.trained("source").tensors)
            bench.fit(fit, output_dir / "run", "fit")
            found.append(bench.test(fit, output_dir / "run", "test") | fit.outcome)
        return found

    return run


def accuracies(runs: list[dict]) -> list[float]:
    return [run["test_accuracy"] for run in runs]


def test_m_fac_recomputed_keeps_at_ninety_percent_what_the_others_lose(result):
    at_ninety = "method.sparsities=[0.9]"
    recomputed = accuracies(result("pruning_digits", "m_fac_pruning", at_ninety))
    once = accuracies(result("pruning_digits", "m_fac_pruning", at_ninety, "method.recomputations=1"))
    magnitude = accuracies(result("pruning_digits", "magnitude_pruning", at_ninety))
    diagonal = accuracies(result("pruning_digits", "diagonal_fisher_pruning", at_ninety))
    assert min(recomputed) >= 90
    assert max(*magnitude, *diagonal) < min(recomputed) - 10
    assert fmean(recomputed) - fmean(once) > 10

"""Weights in two bits on an MLP for digits: what each method brings back, layer by layer and in likelihood.

All three layers, the head as well, on the restricted grid in groups of 32, which has three values at two bits.
"""

from statistics import fmean

import pytest

from fisherexp.config.explain import composed
from fisherexp.runs.finished import resolve_needs
from fisherexp.runs.workbench import Workbench

pytestmark = pytest.mark.proof
SEEDS = (0, 1, 2)
TWO_BITS = ["method.bits=2", "method.group=32", "method.grid=symmetric_restricted", "method.exclude=null"]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Metrics and outcome of a method for each seed, made once; without a method the source's metrics."""
    output_dir, made = tmp_path_factory.mktemp("transforms"), {}

    def of(method: str | None, seed: int, *overrides: str) -> dict:
        chosen = [f"method={method}", *TWO_BITS, *overrides] if method else ["method=rtn"]
        options = ["experiment=compression_digits", *chosen, f"seed={seed}", f"output_dir={output_dir}"]
        bench = Workbench(composed([*options, "progress=off"]))
        fit, source = bench.method("method"), bench.reference("source")
        fit.model.load_state_dict(source.tensors)
        if method:
            resolve_needs(bench, fit, source)
            bench.fit(fit, output_dir / "run", "fit")
        return bench.test(fit, output_dir / "run", "test") | fit.outcome

    def run(method: str | None, *overrides: str) -> list[dict]:
        if (method, overrides) not in made:
            made[method, overrides] = [of(method, seed, *overrides) for seed in SEEDS]
        return made[method, overrides]

    return run


def errors(runs: list[dict]) -> list[float]:
    """Output errors of all layers, of one seed after the other."""
    return [layer["output_error"] for run in runs for layer in run["layers"].values()]


def likelihoods(runs: list[dict]) -> list[float]:
    return [run["test_nll"] for run in runs]


def test_the_exact_factors_lose_about_half_of_the_outputs_or_less_in_every_layer(result):
    """Of what the plain SVD's lose: a tenth to half, of nine layers 1.99 times less at least."""
    exact, plain = (errors(result(method, "method.rank=8")) for method in ("qera_exact", "zeroquant_v2"))
    assert all(1.9 * one < other for one, other in zip(exact, plain, strict=True))
    for method in ("qera_approx", "lqer", "loftq", "fisher_low_rank", "kfac_low_rank"):
        assert all(
            one <= 1.001 * other for one, other in zip(exact, errors(result(method, "method.rank=8")), strict=True)
        )


def test_of_what_rounding_costs_in_likelihood_less_than_a_tenth_is_left(result):
    """The mean over seeds, of 0.15; seed by seed 4, 11 and 0 %."""
    source, rounded = (fmean(likelihoods(result(method))) for method in (None, "rtn"))
    for method in ("qera_exact", "kfac_low_rank", "eora"):
        left = fmean(likelihoods(result(method, "method.rank=8", *(["method.compressor=rtn"] * (method == "eora")))))
        assert left - source < 0.1 * (rounded - source), method


def test_at_rank_four_kfac_s_factors_keep_more_likelihood_and_less_of_the_outputs(result):
    """In each of three seeds: they weigh what matters to the loss, which the outputs of a layer do not know."""
    kfac, exact = (result(method, "method.rank=4") for method in ("kfac_low_rank", "qera_exact"))
    assert all(one < other for one, other in zip(likelihoods(kfac), likelihoods(exact), strict=True))
    assert all(one > other for one, other in zip(errors(kfac), errors(exact), strict=True))

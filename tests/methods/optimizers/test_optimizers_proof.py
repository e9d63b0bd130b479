"""Small-scale proofs on digits: what a window of gradients, its damping and a low-rank subspace do; three seeds."""

import statistics

import pytest

from fisherexp.config.explain import composed
from fisherexp.runs.workbench import Workbench

pytestmark = pytest.mark.proof
SEEDS = (0, 1, 2)
M256 = {"window": 256, "lr": 0.003, "damping": 0.001}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Means and medians over seeds of what a method comes to on the test set, by default as the experiment sets it."""
    output_dir, found = tmp_path_factory.mktemp("optimizers"), {}

    def made(method: str, *options: str) -> dict[str, float]:
        if (method, options) not in found:
            runs = []
            for seed in SEEDS:
                given = ["experiment=optimizers_digits", f"method={method}", f"seed={seed}", *options]
                bench = Workbench(composed([*given, f"output_dir={output_dir}", "progress=off", "threads=1"]))
                fitted = bench.method("method")
                folder = output_dir / str(len(found)) / str(seed)
                bench.fit(fitted, folder, "fit")
                runs.append(bench.test(fitted, folder, "test") | fitted.outcome["metrics"])
            found[method, options] = {name: statistics.fmean(run[name] for run in runs) for name in runs[0]}
            middle = {f"median_{name}": statistics.median(run[name] for run in runs) for name in runs[0]}
            found[method, options] |= middle
        return found[method, options]

    return made


def options(of_method: dict[str, float]) -> list[str]:
    """As on a command line."""
    return [f"method.{name}={value}" for name, value in of_method.items()]


@pytest.mark.parametrize("window", [{}, {"window": 16, "lr": 1.0, "damping": 1.0}, M256])
def test_tuned_for_its_window_m_fac_is_level_with_gradient_descent_and_adam(made, window):
    """In most seeds: the best rate of a window is near the edge, and one may end behind a step that went too far."""
    m_fac = made("m_fac", *options(window))
    assert m_fac["median_test_accuracy"] >= made("sgd")["median_test_accuracy"] - 1.5
    assert m_fac["median_test_accuracy"] >= made("adam")["median_test_accuracy"] - 0.5
    assert m_fac["median_test_nll"] <= made("adam")["median_test_nll"]


def test_a_wide_window_wants_a_rate_and_a_damping_of_its_own(made):
    """Those that are fair for 64 make four times the step with 256; a quarter of both is the same step as with 64."""
    fixed = {"lr": 0.01, "damping": 1e-5}
    wide = made("m_fac", *options({"window": 256, **fixed}))
    scaled = made("m_fac", *options({"window": 256, "lr": 0.0025, "damping": 2.5e-6}))
    narrow = made("m_fac", *options({"window": 64, **fixed}))
    assert wide["train_loss"] >= 3 * narrow["train_loss"]
    assert scaled["train_loss"] <= narrow["train_loss"] + 0.15
    assert made("m_fac", *options(M256))["train_loss"] <= wide["train_loss"] / 5


def test_at_one_product_of_rate_and_window_and_little_damping_more_gradients_are_better(made):
    loss = {m: made("m_fac", *options({"window": m, "lr": 0.3 / m, "damping": 0.01 / m})) for m in (16, 64)}
    assert loss[64]["train_loss"] <= loss[16]["train_loss"] / 1.5
    assert loss[64]["test_accuracy"] >= loss[16]["test_accuracy"] + 2


def test_an_eighth_of_the_directions_is_enough_for_galore(made):
    assert made("galore")["train_loss"] <= made("adam")["train_loss"] + 0.05
    assert made("galore")["test_accuracy"] >= made("adam")["test_accuracy"] - 1


def test_the_natural_gradient_wants_more_damping_than_is_published(made):
    """And is then level with GaLore, its limit."""
    published = made("natural_galore", "method.damping=1e-3")
    assert made("natural_galore")["test_nll"] < published["test_nll"]
    assert abs(made("natural_galore")["test_accuracy"] - made("galore")["test_accuracy"]) <= 1.5

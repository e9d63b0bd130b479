"""Weights by what defines them, losses by hand, and the bias that is left on ratings whose truth is known."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from fisherexp.data.errors import DataError
from fisherexp.methods.statistics.balancing import (
    adaptive_centers,
    balanced,
    imbalance,
    kernels,
    logistic_weights,
    naive_bayes_weights,
    worst_centers,
)
from fisherexp.methods.statistics.causal_balancing import CausalBalancing
from fisherexp.metrics.ranking import ndcg
from fisherexp.problems.ratings import Prediction, RatingsFile, SimulatedRatings

DRAW = torch.Generator().manual_seed(0)
POINTS = torch.randn(300, 2, generator=DRAW, dtype=torch.float64)
CHOSEN = POINTS[torch.rand(300, generator=DRAW) < (2 * POINTS[:, 0]).sigmoid()]


@pytest.mark.parametrize("tolerance", [0.0, 1e-3, 1e-2])
@pytest.mark.parametrize("kernel", ["gaussian", "exponential"])
def test_each_kernel_is_balanced_up_to_the_tolerance(tolerance, kernel):
    there, here = (kernels(part, POINTS[:8], 1.5, kernel) for part in (POINTS, CHOSEN))
    weights = balanced(here, there.mean(0), tolerance)
    assert weights.mean().item() == pytest.approx(1)
    assert (weights > 0).all()
    assert imbalance(here, there.mean(0), weights) <= tolerance + 1e-5
    assert imbalance(here, there.mean(0), torch.ones(len(CHOSEN)).double()) > 0.03  # control: they were not balanced
    # An error made of the kernels is estimated as the gaps allow.
    mix = torch.arange(8).double() - 3
    assert abs((weights * (here @ mix)).mean() - (there @ mix).mean()) <= (tolerance + 1e-5) * mix.abs().sum()


def test_weights_are_of_the_exponential_family_and_follow_the_order_of_their_samples():
    here, means = kernels(CHOSEN, POINTS[:3], 1.5, "gaussian"), kernels(POINTS, POINTS[:3], 1.5, "gaussian").mean(0)
    weights = balanced(here, means, 0.0)
    design = torch.cat([here, torch.ones(len(here), 1).double()], 1)  # log w is linear in the functions: least entropy
    residual = weights.log() - design @ torch.linalg.lstsq(design, weights.log()[:, None]).solution[:, 0]
    assert residual.abs().max() < 1e-8
    order = torch.randperm(len(here), generator=DRAW)
    torch.testing.assert_close(balanced(here[order], means, 0.0), weights[order], rtol=1e-4, atol=1e-4)
    constant = torch.ones(len(here), 2, dtype=torch.float64)
    torch.testing.assert_close(balanced(constant, constant.mean(0), 0.0), constant[:, 0])


def test_adaptive_centers_are_those_that_make_up_the_error():
    functions = kernels(CHOSEN, POINTS[:20], 0.5, "gaussian")
    errors = functions[:, [3, 11]] @ torch.tensor([2.0, -1.5]).double()
    assert adaptive_centers(functions, errors, torch.ones_like(errors), 2, ridge=1e-9).tolist() == [3, 11]


def test_worst_centers_are_those_of_the_largest_gaps():
    here, there = (kernels(part, POINTS[:40], 0.8, "gaussian") for part in (CHOSEN, POINTS))
    means = there.mean(0)
    gaps = (here.mean(0) - means).abs()
    assert worst_centers(here, means, 4, 1e-4, rounds=1).tolist() == sorted(gaps.topk(4).indices.tolist())
    places = worst_centers(here, means, 4, 1e-4)
    assert int(gaps.argmax()) in places.tolist()
    assert len(set(places.tolist())) == 4


def test_propensities_by_their_definitions():
    chosen, unbiased = torch.tensor([5.0, 5, 5, 1]).double(), torch.tensor([5.0, 1, 1, 1]).double()
    assert naive_bayes_weights(chosen, unbiased).tolist() == pytest.approx([1 / 3] * 3 + [3])
    moved = torch.randn(300, 2, generator=DRAW, dtype=torch.float64) + torch.tensor([1.0, 0.0])
    weights = logistic_weights(moved, POINTS)  # of N((1, 0), I) against N(0, I): exp(½ - z)
    assert (weights.log() - (0.5 - moved[:, 0])).abs().mean() < 0.3
    assert weights.mean().item() == pytest.approx(1, abs=0.2)


def test_evaluation_and_own_files(tmp_path):
    (tmp_path / "chosen.csv").write_text("user,item,rating\na,x,5\nb,x,4\na,y,3\nb,y,2.5\n")
    (tmp_path / "random.csv").write_text("user,item,rating\nc,x,1\na,z,2\nb,x,3\nc,z,4\n")
    options = {"path": str(tmp_path / "chosen.csv"), "test_path": str(tmp_path / "random.csv"), "unbiased": 0.25}
    problem = RatingsFile(**options).load(0)
    assert problem.shape == (3, 3)
    assert problem.about() == {"users": 3, "items": 3, "chosen": 4, "unbiased": 1, "test": 3}
    assert problem.part("chosen").ratings.tolist() == [5, 4, 3, 2.5]
    truth = problem.part("test").ratings
    found = problem.evaluate(Prediction(truth + 2, float(truth.mean()) - 1))
    assert found == {"mse": pytest.approx(4), "mae": pytest.approx(2), "mean_bias": pytest.approx(-1)}
    ranked = RatingsFile(**options, liked=3.0).load(0)
    users, _, ratings = ranked.part("test")
    scores = torch.arange(len(ratings)).double()
    found = ranked.evaluate(Prediction(scores, 0.0))
    assert found["auc"] == pytest.approx(100 * roc_auc_score(ratings >= 3, scores))
    assert found["ndcg"] == pytest.approx(100 * ndcg(users, scores, ratings >= 3))
    assert ranked.evaluate(Prediction(ratings, 0.0))["auc"] == 100
    with pytest.raises(DataError, match=r"data\.liked=9\.0: 0 of 3 test ratings are as high; some of them"):
        RatingsFile(**options, liked=9.0).load(0).evaluate(Prediction(scores, 0.0))
    method = CausalBalancing(centers=2, pairs=20, steps=2)  # features are learned: the files have none
    method.begin(problem, 0)
    assert set(method.step()) == {"loss", "mse", "mae", "mean_bias"}
    (tmp_path / "random.csv").write_text("user,item,stars\nc,x,1\n")
    with pytest.raises(DataError, match=r"no column 'rating'; it has user, item, stars"):
        RatingsFile(**options).load(0)
    (tmp_path / "random.csv").write_text("user,item,rating\nc,x,good\n")
    with pytest.raises(DataError, match=r"random\.csv, line 2: rating 'good' is not a number"):
        RatingsFile(**options).load(0)


def test_the_doubly_robust_loss_weighs_the_whole_residual():
    """Where the imputed errors are those of a constant model: mean_all ê + mean w (e - ê), by hand."""
    problem = SimulatedRatings(users=20, items=15).load(0)
    method = CausalBalancing("logistic", "doubly_robust", pairs=50, steps=1)
    method.begin(problem, 0)
    users, items, ratings = method.chosen
    figures = method.step()
    start = CausalBalancing("logistic", "doubly_robust", pairs=50, steps=1)
    start.begin(problem, 0)
    # The imputation takes its step first, the model's loss is that before its own.
    with torch.no_grad():
        predicted, guess = start.model(users, items), method.imputed(users, items)
        every = (start.model(*start.drawn) - method.imputed(*start.drawn)).square()
        residual = (predicted - ratings).square() - (predicted - guess).square()
    assert figures["loss"] == pytest.approx(float(every.mean() + (method.current * residual).mean()))


def test_kernels_that_cannot_fit_are_refused_before_they_are_made():
    with pytest.raises(ValueError, match=r"kernels of ratings \(\d+ × 40000000000\) takes .*; lower method\.centers"):
        CausalBalancing(centers=10**10).begin(SimulatedRatings().load(0), 0)


def bias(weights, seed, centers=30):
    problem = SimulatedRatings().load(seed)
    method = CausalBalancing(weights, centers=centers, steps=1)
    method.begin(problem, seed)
    return abs(problem.evaluate(method.solution())["mean_bias"])


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_balanced_kernels_remove_the_bias_that_logistic_propensities_leave(seed):
    found = {
        weights: bias(weights, seed) for weights in ("uniform", "logistic", "moments", "kernel", "adaptive_kernel")
    }
    assert max(found["kernel"], found["adaptive_kernel"]) <= 0.2 * found["logistic"]
    assert min(found["logistic"], found["moments"]) > 0.8 * found["uniform"] > 0.3


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_few_centers_are_worth_choosing_by_their_gaps(seed):
    """With ten of them; with thirty, as by default, random ones are as good."""
    assert bias("worst_kernel", seed, centers=10) < 0.9 * bias("kernel", seed, centers=10)


def squared_error(seed, weights, estimator="ips"):
    problem = SimulatedRatings().load(seed)
    method = CausalBalancing(weights, estimator)
    method.begin(problem, seed)
    while not method.done:
        found = method.step()
    return found["mse"]


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_predictions_gain_from_the_weights(seed):
    """The error on random pairs falls, though far less than the bias of the mean: terms of users and items already
    explain much of the choice."""
    logistic = squared_error(seed, "logistic")
    assert squared_error(seed, "kernel") < 0.99 * logistic < 0.99 * squared_error(seed, "uniform")

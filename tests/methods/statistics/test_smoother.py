"""Smoothers as methods: steps are those of the pure functions, what is evaluated is scikit-learn's own prediction."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor

from fisherexp.data.bundled_tables import BreastCancer, Diabetes, Wine
from fisherexp.data.friedman import Friedman
from fisherexp.methods.statistics.boosting_smoother import BoostingSmoother
from fisherexp.methods.statistics.forest_smoother import ForestSmoother
from fisherexp.methods.statistics.neighbor_smoother import NeighborSmoother
from fisherexp.problems.supervised import Supervised
from fisherexp.scenarios.plain import Plain

SMALL = {"n": 60, "test_n": 40}


def problem(data=None):
    return Supervised(data or Friedman(**SMALL), Plain(), None, None, on_validation=False, store=None).load(0)


def finished(method, problem, seed=0):
    method.begin(problem, seed)
    while not method.done:
        method.step()
    return method


MAKERS = {
    "forest": lambda: ForestSmoother(trees=5, bootstrap=True),
    "boosting": lambda: BoostingSmoother(trees=5, max_depth=2),
    "neighbors": lambda: NeighborSmoother(neighbors=4),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_curve_ends_where_the_evaluation_is(make):
    ours = problem()
    method = finished(make(), ours)
    found = ours.evaluate(method.solution())
    assert found["test_rmse"] ** 2 == pytest.approx(method.metrics()["test_error"], rel=1e-5)
    train, test = (method.metrics()[f"{part}_error"] for part in ("train", "test"))
    assert method.metrics()["generalization_gap"] == pytest.approx(test - train)


def test_predictions_are_those_of_a_forest_of_scikit_learn():
    ours = problem()
    method = finished(ForestSmoother(trees=5, max_features=1.0, max_leaf_nodes=8), ours)
    parts = ours.setting.parts
    inputs, outcomes = parts["train"].inputs.double().numpy(), parts["train"].targets.double().numpy()[:, 0]
    theirs = RandomForestRegressor(5, max_features=1.0, max_leaf_nodes=8, bootstrap=False, random_state=1)
    theirs = theirs.fit(inputs, outcomes)
    test = parts["test"].inputs
    assert method.solution()(test).shape == (40, 1)
    # All features, all samples: trees differ by nothing but ties.
    np.testing.assert_allclose(method.solution()(test)[:, 0], theirs.predict(test.double().numpy()), atol=0.3)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("stop", [1, 3])
def test_goes_on_bit_for_bit_and_follows_the_seed(make, stop, tmp_path):
    whole = finished(make(), problem())
    method = make()
    method.begin(problem(), 0)
    for _ in range(stop):
        method.step()
    torch.save(method.state_dict(), tmp_path / "state")
    resumed = make()
    resumed.begin(problem(), 0)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    while not resumed.done:
        resumed.step()
    assert resumed.curve == whole.curve
    test = problem().setting.parts["test"].inputs
    assert torch.equal(resumed.solution()(test), whole.solution()(test))
    if "Forest" in type(whole).__name__:
        assert finished(make(), problem(), seed=1).curve != whole.curve


@pytest.mark.parametrize("data", [Wine, BreastCancer])
def test_classes_have_probabilities(data):
    ours = problem(data())
    method = finished(ForestSmoother(trees=10), ours)
    found = ours.evaluate(method.solution())
    assert found["test_accuracy"] > 85
    assert np.isfinite(found["test_nll"])
    outputs = method.solution()(ours.setting.parts["test"].inputs)
    torch.testing.assert_close(outputs.exp().sum(1), torch.ones(len(outputs)), rtol=0, atol=0.02)


def test_what_cannot_be_smoothed_is_refused_in_one_line():
    with pytest.raises(ValueError, match="one outcome or two classes, not 3"):
        BoostingSmoother().begin(problem(Wine()), 0)
    with pytest.raises(ValueError, match=r"method\.neighbors=61: there are only 60"):
        NeighborSmoother(61).begin(problem(), 0)


def test_a_full_tree_copies_its_training_outcomes_and_the_figure_is_left(tmp_path):
    ours = problem()
    method = finished(ForestSmoother(trees=1, max_features=1.0), ours)
    assert method.metrics()["train_parameters"] == pytest.approx(60)
    assert method.metrics()["train_error"] == pytest.approx(0, abs=1e-20)
    method.leave_files(tmp_path)
    assert (tmp_path / "smoothing.png").is_file()


def test_friedman_moves_test_points_and_knows_their_outcomes():
    near, there = Friedman(**SMALL, offset=0.05).load(), Friedman(**SMALL, offset=0.0).load()
    distance = torch.cdist(near.test.inputs, near.train.inputs, p=float("inf")).amin(1)
    assert 0 < distance.max() <= 0.05 + 1e-6
    assert torch.isin(there.test.inputs, there.train.inputs).all()
    assert not torch.isin(Friedman(**SMALL).load().test.inputs, near.train.inputs).any()  # control: fresh ones
    assert Friedman(**SMALL).checksum() != Friedman(**SMALL, seed=1).checksum()


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_forests_smooth_unseen_points_more_the_farther_they_are(seed):
    """Effective parameters on test inputs fall with their distance and with trees; on training inputs they stay n."""
    by_offset = []
    for offset in (0.0, 0.05, 0.1, 0.2, 0.3):
        method = finished(ForestSmoother(trees=50, max_features=0.6), problem(Friedman(offset=offset, seed=seed)), seed)
        assert method.metrics()["train_parameters"] == pytest.approx(500)
        by_offset.append(method.metrics()["test_parameters"])
    assert by_offset == sorted(by_offset, reverse=True)
    assert by_offset[0] == pytest.approx(500)
    for features in (0.2, 0.6, 1.0):
        curve = finished(ForestSmoother(50, features), problem(Friedman(seed=seed)), seed).curve
        parameters, errors = ([curve[i][key] for i in (0, 9, 49)] for key in ("test_parameters", "test_error"))
        assert parameters == sorted(parameters, reverse=True)
        assert errors == sorted(errors, reverse=True)


def test_diabetes_is_standardized():
    data = Diabetes().load()
    assert data.train.targets.shape[1] == data.num_outputs == 1
    assert data.train.targets.std(correction=0).item() == pytest.approx(1, rel=1e-5)
    plain = Diabetes(standardize_target=False).load()
    assert 25 <= plain.train.targets.min() < plain.train.targets.max() <= 346

"""Scikit-learn's classifiers as methods: what they choose and predict, the lasso's folds, going on, and groups."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fisherexp.data.bundled_tables import Wine
from fisherexp.methods.statistics.library_classifier import LibraryClassifier, log_probabilities, ridge
from fisherexp.methods.statistics.multinomial_lasso import MultinomialLasso
from fisherexp.problems.supervised import Supervised
from fisherexp.scenarios.plain import Plain
from fisherexp.seeds import derive

SMALL = {"ridge": {"strengths": 4}, "forest": {"trees": 8}}


@pytest.fixture(scope="module")
def wines():
    return Supervised(Wine(), Plain(), None, None, on_validation=False, store=None).load(0)


def finished(problem, estimator, seed=3, **options):
    method = LibraryClassifier(estimator, **SMALL[estimator] | options)
    method.begin(problem, seed)
    while not method.done:
        method.step()
    return method


def test_the_ridge_is_that_of_a_search_over_the_lassos_folds(wines):
    method, lasso = finished(wines, "ridge"), MultinomialLasso()
    lasso.begin(wines, 3)
    np.testing.assert_array_equal(method.fold, lasso.fold)
    x, y = method.rows.columns, method.rows.labels
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)),
        {"logisticregression__C": np.geomspace(1e-4, 1e4, 4)},
        scoring="neg_log_loss",
        cv=PredefinedSplit(lasso.fold),
    ).fit(x, y)
    assert method.metrics()["fold_deviance"] == pytest.approx(-search.best_score_, rel=1e-3)
    test = wines.setting.parts["test"].inputs
    expected = search.best_estimator_.predict_log_proba(test.double().numpy())
    torch.testing.assert_close(method.solution()(test), torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-4)
    weakest = log_probabilities(ridge(1e-4).fit(x, y), test.double().numpy(), 3)  # the control
    assert np.abs(weakest - expected).max() > 0.1


def test_the_forest_is_scikit_learns_and_has_its_figure(wines, tmp_path):
    method = finished(wines, "forest")
    forest = RandomForestClassifier(8, random_state=derive("forest", 3)).fit(method.rows.columns, method.rows.labels)
    test = wines.setting.parts["test"].inputs
    found = method.solution()(test).exp()
    torch.testing.assert_close(
        found, torch.from_numpy(forest.predict_proba(test.double().numpy())).float(), rtol=0, atol=1e-6
    )
    assert 0 < float(found.min()) < 1e-6  # no logarithm of zero
    method.leave_files(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"features.png", "features.pdf"}


def test_goes_on_where_it_was(wines):
    whole, method = finished(wines, "ridge"), LibraryClassifier("ridge", **SMALL["ridge"])
    method.begin(wines, 3)
    method.load_state_dict({"deviances": whole.deviances[:2]})
    while not method.done:
        method.step()
    assert method.deviances == whole.deviances
    again = LibraryClassifier("ridge", **SMALL["ridge"])
    again.begin(wines, 3)
    again.load_state_dict(whole.state_dict())
    test = wines.setting.parts["test"].inputs
    assert torch.equal(again.solution()(test), whole.solution()(test))


def test_a_class_that_was_not_there_is_improbable():
    model = ridge(1.0).fit(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 2, 2]))
    found = log_probabilities(model, np.array([[0.0], [3.0]]), 3)
    assert found[:, 1].tolist() == [np.log(1e-12)] * 2
    assert found.argmax(1).tolist() == [0, 2]


def test_rows_that_belong_together_share_a_fold_and_mark_no_input(wines):
    method = finished(wines, "ridge", groups="magnesium", strengths=1)
    marks = method.rows.groups
    assert all(len(set(method.fold[marks == value])) == 1 for value in set(marks))
    assert "magnesium" not in method.rows.names
    assert method.rows.columns.shape[1] == 12
    with pytest.raises(ValueError, match=r"method\.groups=iron: no such feature; there are alcohol"):
        finished(wines, "ridge", groups="iron")

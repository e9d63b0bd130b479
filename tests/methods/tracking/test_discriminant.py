"""The discriminant: scikit-learn's subspace, its normalization, what it is invariant to, and how recency counts."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fisherexp.methods.tracking.discriminant import Scatter, projection, recency_weights, scatter, shrunk_covariance


def histories(tracks=4, dimension=6, seed=0):
    draws = np.random.default_rng(seed)
    mixing = draws.normal(size=(dimension, dimension))
    return [
        draws.normal(size=dimension) + draws.normal(size=(length, dimension)) @ mixing
        for length in draws.integers(20, 40, tracks)
    ]


def labelled(parts):
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def test_the_covariances_are_scikit_learns():
    parts = histories()
    theirs = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", store_covariance=True).fit(*labelled(parts))
    np.testing.assert_allclose(scatter(parts).within, theirs.covariance_, atol=1e-12)
    np.testing.assert_array_equal(shrunk_covariance(parts[0][:1]), np.zeros((6, 6)))


def test_the_subspace_is_scikit_learns_where_both_mean_the_same():
    """Theirs takes S_b = S_t - S_w, with S_t shrunk too: the same without shrinkage only."""
    parts = histories()
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(*labelled(parts)).scalings_[:, :3]
    assert subspace_angles(projection(scatter(parts, shrink=False), 3), theirs).max() < 1e-7
    shrunk = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(*labelled(parts)).scalings_[:, :3]
    assert subspace_angles(projection(scatter(parts), 3), shrunk).max() > 1e-3  # the control
    total = shrunk_covariance(labelled(parts)[0])
    within = scatter(parts).within
    assert subspace_angles(projection(Scatter(within, total - within), 3), shrunk).max() < 1e-7


def test_the_projection_whitens_and_has_no_more_directions_than_tracks():
    parts = histories()
    found = scatter(parts, decay=0.9)
    axes = projection(found, 3)
    np.testing.assert_allclose(axes.T @ found.within @ axes, np.eye(3), atol=1e-8)
    between = axes.T @ found.between @ axes
    np.testing.assert_allclose(between, np.diag(np.diag(between)), atol=1e-8)
    assert (np.diff(np.diag(between)) < 0).all()
    assert np.linalg.matrix_rank(found.between, tol=1e-9) == 3


def test_projected_features_do_not_depend_on_the_basis_without_shrinkage():
    parts = histories()
    change = np.random.default_rng(1).normal(size=(6, 6))
    moved = [part @ change for part in parts]

    def compared(shrink):
        one, other = (np.abs(some[0] @ projection(scatter(some, 0.9, shrink), 3)) for some in (parts, moved))
        return np.abs(one - other).max()

    assert compared(shrink=False) < 1e-4  # of the ridge
    assert compared(shrink=True) > 1e-2  # the control


@pytest.mark.parametrize(("count", "expected"), [(1, [0.9]), (3, [0.729, 0.81, 0.9])])
def test_recency(count, expected):
    np.testing.assert_allclose(recency_weights(count, 0.9), expected)
    ramp = [np.outer(np.arange(10.0), np.ones(2)) + 0.1 * np.eye(10, 2), np.eye(10, 2)]
    weights = recency_weights(10, 0.5)
    means = [weights @ part / weights.sum() for part in ramp]
    away = means[0] - means[1]
    expected = weights.sum() / 2 * np.outer(away, away)
    np.testing.assert_allclose(scatter(ramp, 0.5).between, expected)
    assert abs(scatter(ramp, 1.0).between - expected).max() > 1  # the control

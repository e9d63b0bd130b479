"""The discriminant: scikit-learn's subspace, its normalization, what it is invariant to, and how recency counts."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fisherexp.methods.tracking.discriminant import projection, recency_weights, scatter, shrunk_covariance


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
    assert subspace_angles(projection(scatter(parts, between="remainder"), 3), shrunk).max() < 1e-7


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


def by_pairs(parts, decay, similar):
    """The sum over pairs as it is written."""
    weights = [recency_weights(len(part), decay) for part in parts]
    means = [w @ part / w.sum() for w, part in zip(weights, parts, strict=True)]
    found = np.zeros((6, 6))
    for i, one in enumerate(means):
        for other in means:
            share = (1 + one @ other / np.linalg.norm(one) / np.linalg.norm(other)) / 2 if similar else 1
            found += weights[i].sum() * share * np.outer(one - other, one - other)
    return found


@pytest.mark.parametrize("similar", [False, True])
def test_pairs_are_compared_as_written(similar):
    parts = histories()
    found = scatter(parts, 0.9, between="similar_pairs" if similar else "pairs")
    np.testing.assert_allclose(found.between, by_pairs(parts, 0.9, similar), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(found.within, scatter(parts, 0.9).within)


def test_pairs_of_equally_long_tracks_are_the_means_over_again():
    """Σ_ij (μ_i - μ_j)(μ_i - μ_j)ᵀ = 2 C Σ_i (μ_i - μ)(μ_i - μ)ᵀ."""
    parts = [part[:20] for part in histories()]
    means, pairs, similar = (scatter(parts, 0.9, between=kind).between for kind in ("means", "pairs", "similar_pairs"))
    np.testing.assert_allclose(pairs, 2 * 4 * means, rtol=1e-9, atol=1e-9)
    assert abs(similar / (2 * 4) - means).max() > 1e-2 * abs(means).max()  # the control
    uneven = histories()
    turned = subspace_angles(*(projection(scatter(uneven, between=kind), 1) for kind in ("means", "pairs")))
    assert turned.max() > 1e-4  # the other control


def test_the_exponent_is_of_the_weights_in_means_alone():
    parts = [part[:20] for part in histories()]
    plain, flat, double = (scatter(parts, 0.9, exponent=power).between for power in (1.0, 0.0, 2.0))
    share = recency_weights(20, 0.9).sum() / 20
    np.testing.assert_allclose(flat, share * scatter(parts, 1.0).between, rtol=1e-9, atol=1e-9)
    steeper = recency_weights(20, 0.81).sum()
    np.testing.assert_allclose(double / (share * 20), scatter(parts, 0.81).between / steeper, rtol=1e-9, atol=1e-9)
    assert abs(double - plain).max() > 1e-2 * abs(plain).max()  # the control

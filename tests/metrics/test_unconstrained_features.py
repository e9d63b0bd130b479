"""The unconstrained-features optimum: fixed point, geometry, limits, and what the callback's table makes of it."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from fisherexp.metrics.channels import (
    LAMBDAS,
    channel_row,
    fitted_cross_entropy,
    fitted_squared_error,
    outward,
    weights_of_rows,
)
from fisherexp.metrics.unconstrained_features import (
    mixed_targets,
    optimal_features,
    optimal_features_squared_error,
    optimal_probabilities,
)
from fisherexp.models.heads import simplex_etf

LAM = torch.linspace(0, 1, 21, dtype=torch.float64)


@pytest.mark.parametrize("kappa", [1e-3, 1.0, 30.0, 1e4, 1e7])
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_it_is_the_fixed_point(classes, kappa):
    target = torch.cat([mixed_targets(LAM, classes), torch.full((1, classes), 1 / classes).double()])
    p = optimal_probabilities(target, kappa)
    torch.testing.assert_close(p.sum(1), torch.ones(len(p)).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(p, (kappa * (target - p)).softmax(1), rtol=0, atol=1e-14 * max(1.0, 10 * kappa))


def half_squared_error(outputs, target):
    return (outputs - target).square().sum() / 2


LOSSES = [
    (optimal_features, partial(F.cross_entropy, reduction="sum")),
    (optimal_features_squared_error, half_squared_error),
]


@pytest.mark.parametrize(("optimum", "criterion"), LOSSES, ids=["cross-entropy", "squared error"])
@pytest.mark.parametrize("decay", [0.01, 0.05, 1.0])
@pytest.mark.parametrize("length", [0.5, 3.0])
def test_features_are_stationary(length, decay, optimum, criterion):
    """The gradient of the objective, by autograd, vanishes."""
    torch.manual_seed(0)
    weight = length * simplex_etf(5, 7)
    target = torch.cat([mixed_targets(LAM, 5), torch.rand(4, 5).double().softmax(1)])
    features = optimum(weight, target, decay).requires_grad_()
    loss = criterion(features @ weight.T, target) + decay / 2 * features.square().sum()
    (gradient,) = torch.autograd.grad(loss, features)
    assert gradient.abs().max() < 1e-11


def test_published_geometry():
    """C = 10, ‖w‖ = 1, decay 0.05: values of two independent solvers."""
    weight = simplex_etf(10, 32)
    features = optimal_features(weight, mixed_targets(torch.tensor([1.0, 0.9, 0.75, 0.5, 0.0]), 10), 0.05)
    lengths = torch.tensor([3.490, 3.271, 3.287, 3.329, 3.490]).double()
    torch.testing.assert_close(features.norm(dim=1), lengths, rtol=0, atol=6e-4)
    along = (features @ weight[0])[[0, 3, 4]]
    torch.testing.assert_close(along, torch.tensor([3.490, 2.219, -0.388]).double(), rtol=0, atol=6e-4)


def test_same_class_features_do_not_depend_on_lambda_and_are_parallel_to_their_row():
    weight = 2 * simplex_etf(6, 9)
    features = optimal_features(weight, mixed_targets(LAM, 6, first=4, second=4), 0.03)
    torch.testing.assert_close(features, features[:1].expand_as(features))
    cosine = F.cosine_similarity(features[0], weight[4], dim=0)
    assert cosine.item() == pytest.approx(1)


def test_different_classes_bulge_outwards_and_stay_in_the_plane_of_their_rows():
    weight = simplex_etf(10, 32)
    features = optimal_features(weight, mixed_targets(LAM, 10, 3, 7), 0.05)
    plane, _ = torch.linalg.qr(weight[[3, 7]].T)
    torch.testing.assert_close(features @ plane @ plane.T, features)
    along = features @ weight[3]
    assert along[10] > 1.15 * (along[0] + along[-1]) / 2
    torch.testing.assert_close(along[10], features[10] @ weight[7])  # on the boundary at λ = 1/2
    p = (features @ weight.T).softmax(1)[:, 3]
    assert (p.diff() > 0).all()


def test_limits():
    """Little decay: calibrated on mixtures. Much: linear in λ, hence convex combinations."""
    target = mixed_targets(LAM, 10)
    torch.testing.assert_close(optimal_probabilities(target, 1e6), target, rtol=0, atol=2e-5)
    weight = simplex_etf(10, 12)
    features = 1e5 * optimal_features(weight, target, 1e5)
    torch.testing.assert_close(features, (target - 0.1) @ weight, rtol=0, atol=1e-4)
    chord = LAM[:, None] * features[-1] + (1 - LAM[:, None]) * features[0]
    torch.testing.assert_close(features, chord, rtol=0, atol=1e-4)


def table_of(features, weight, pairs):
    return torch.stack(
        [channel_row(h, (h @ weight.T).softmax(1), pairs, weight, torch.zeros(weight.shape[1])) for h in features]
    )


def test_channel_table_of_the_theory_is_fitted_by_the_theory():
    torch.manual_seed(0)
    weight, pairs, lam = simplex_etf(10, 16), torch.tensor([[3, 7], [0, 2], [9, 1]]), torch.tensor(LAMBDAS).double()
    decay = 10 / 9 / 30  # κ = 30
    features = [optimal_features(weight, mixed_targets(lam, 10, *pair.tolist()), decay) for pair in pairs]
    table = table_of(torch.stack(features, 1), weight, pairs)
    kappa, theory = fitted_cross_entropy(table, 10, lam)
    assert kappa == pytest.approx(30, rel=0.04)  # the grid of κ has steps of 6 %
    torch.testing.assert_close(theory, table[:, :5], rtol=0, atol=0.02)
    assert outward(table) > 0.15
    assert table[:, 7].abs().max() < 1e-9  # nothing lies outside the plane
    torch.testing.assert_close(table[:, 5:7], torch.zeros(7, 2).double(), rtol=0, atol=1e-9)


def test_channel_table_under_the_squared_error_is_fitted_by_its_theory():
    """With the best bias, 1/C; and the components along two rows say which combination of them a feature is."""
    torch.manual_seed(0)
    weight, pairs, lam = simplex_etf(10, 16), torch.tensor([[3, 7], [0, 2], [9, 1]]), torch.tensor(LAMBDAS).double()
    targets = [mixed_targets(lam, 10, *pair.tolist()) for pair in pairs]
    features = torch.stack([optimal_features_squared_error(weight, target, 0.5) for target in targets], 1)
    table = torch.stack([channel_row(h, h @ weight.T + 0.1, pairs, weight, torch.zeros(16)) for h in features])
    shrinkage, theory = fitted_squared_error(table, 10, lam)
    eigenvalue = 10 / 9
    assert shrinkage == pytest.approx(eigenvalue / (eigenvalue + 0.5))
    torch.testing.assert_close(theory, table[:, :5])
    assert outward(table) == pytest.approx(0)
    found = weights_of_rows(theory[:, 3:5], 10) @ weight[pairs[0]]
    torch.testing.assert_close(found, features[:, 0])


def test_convex_combinations_bulge_nowhere():
    torch.manual_seed(0)
    weight, pairs = simplex_etf(4, 8), torch.tensor([[0, 1], [2, 3]])
    ends = torch.randn(2, 8, dtype=torch.float64), torch.randn(2, 8, dtype=torch.float64)
    table = table_of(torch.stack([lam * ends[0] + (1 - lam) * ends[1] for lam in LAMBDAS]), weight, pairs)
    assert outward(table) == pytest.approx(0)


def test_channel_row_is_its_definition():
    torch.manual_seed(0)
    weight, center = torch.randn(5, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    features, pairs = torch.randn(40, 6, dtype=torch.float64), torch.rand(40, 5).argsort(1)[:, :2]
    p = torch.rand(40, 5, dtype=torch.float64).softmax(1)
    found = channel_row(features, p, pairs, weight, center)
    rows, h = weight - weight.mean(0), features - center
    a = torch.stack([x @ rows[i] / rows[i].norm() for x, (i, _) in zip(h, pairs, strict=True)])
    b = torch.stack([x @ rows[j] / rows[j].norm() for x, (_, j) in zip(h, pairs, strict=True)])
    planes = [torch.linalg.qr(rows[pair].T)[0] for pair in pairs]
    inside = sum((x @ plane).square().sum() for x, plane in zip(h, planes, strict=True))
    others = [max(q[c] for c in range(5) if c not in pair.tolist()) for q, pair in zip(p, pairs, strict=True)]
    expected = [
        sum(q[i] for q, (i, _) in zip(p, pairs, strict=True)) / 40,
        sum(q[j] for q, (_, j) in zip(p, pairs, strict=True)) / 40,
        sum(others) / 40,
        a.mean(),
        b.mean(),
        ((a - b) / 2**0.5).std(),
        ((a + b) / 2**0.5).std(),
        1 - inside / h.square().sum(),
        h.norm(dim=1).mean(),
    ]
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.proof
def test_an_optimizer_of_free_features_finds_the_closed_form():
    """Forty settings of classes, length of rows, decay and λ; LBFGS on the objective itself."""
    torch.manual_seed(0)
    settings = [
        (c, m, d, w) for c in (3, 10) for m in (1.0, 4.0) for d in (0.005, 0.05) for w in (0.5, 0.6, 0.75, 0.9, 1)
    ]
    for classes, squared_length, decay, lam in settings:
        weight = squared_length**0.5 * simplex_etf(classes, 16)
        target = mixed_targets(torch.tensor([lam]), classes)
        found = torch.zeros(1, 16, dtype=torch.float64, requires_grad=True)
        options = {"tolerance_grad": 1e-12, "tolerance_change": 1e-16, "line_search_fn": "strong_wolfe"}
        optimizer = torch.optim.LBFGS([found], max_iter=500, **options)

        def closure(found=found, weight=weight, target=target, decay=decay, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(found @ weight.T, target) + decay / 2 * found.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        closed = optimal_features(weight, target, decay)
        torch.testing.assert_close(found.detach(), closed, rtol=0, atol=1e-5)
    assert len(settings) == 40

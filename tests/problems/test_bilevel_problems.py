"""Bilevel problems: constants that hold, a lower level solved to the distance asked for, and known solutions."""

import pytest
import torch

from fisherexp.data.digits import Digits
from fisherexp.data.errors import DataError
from fisherexp.problems.bilevel import BilevelQuadratic, solve_lower
from fisherexp.problems.bilevel_denoising import FieldsOfExperts, TotalVariation, cosine_filters, differences
from fisherexp.problems.bilevel_ridge import LogisticRidge

SMALL = {
    "quadratic": lambda: BilevelQuadratic(n=30, m=4),
    "total_variation": lambda: TotalVariation(1, 8, 0.1, 0.1, 0.05),
    "fields_of_experts": lambda: FieldsOfExperts(1, 8, 0.1, 0.1, 0.05),
    "learned_filters": lambda: FieldsOfExperts(1, 8, 0.1, 0.1, 0.05, learn="filters"),
    **{f"ridge, {name}": lambda name=name: LogisticRidge(40, -1.0, name) for name in ("all", "pixel", "entry")},
}


@pytest.fixture(scope="module", params=SMALL)
def problem(request):
    return SMALL[request.param]().load(0)


def near(problem, seed):
    """A point, and one not far from it, with a θ."""
    draw = torch.Generator().manual_seed(seed)
    x, theta = problem.start
    noise = torch.randn(2, *x.shape, generator=draw, dtype=torch.float64)
    theta = theta + 0.3 * torch.randn(theta.shape, generator=draw, dtype=torch.float64)
    return x + 0.2 * noise[0], x + 0.2 * noise[0] + 0.02 * noise[1], theta


def times(problem, x, theta, direction):
    """∂²h/∂x² times a direction."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(problem.lower(x, theta), x, create_graph=True)
    return torch.autograd.grad(slope, x, direction)[0]


def jacobian(problem, x, theta):
    """∂²h/∂x∂θ, (size of x, size of θ)."""

    def slope(theta):
        point = x.detach().requires_grad_()
        return torch.autograd.grad(problem.lower(point, theta), point, create_graph=True)[0].flatten()

    return torch.autograd.functional.jacobian(slope, theta)


@pytest.mark.parametrize("seed", [0, 1])
def test_constants_hold(problem, seed):
    x, other, theta = near(problem, seed)
    known = problem.constants(x, theta)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(5):
        direction = torch.randn(x.shape, generator=draw, dtype=torch.float64)
        direction = direction / direction.norm()
        curved = times(problem, x, theta, direction)
        assert known.mu * (1 - 1e-9) <= float((direction * curved).sum()) <= known.smoothness
        change = (times(problem, other, theta, direction) - curved).norm()
        assert float(change) <= known.inverse_slope * known.mu**2 * float((x - other).norm()) + 1e-12
    at_x, at_other = jacobian(problem, x, theta), jacobian(problem, other, theta)
    assert float(torch.linalg.matrix_norm(at_x, 2)) <= known.jacobian * (1 + 1e-9)
    change = torch.linalg.matrix_norm(at_x - at_other, 2)
    assert float(change) <= known.jacobian_slope * float((x - other).norm()) + 1e-12
    slopes = [torch.autograd.functional.jacobian(problem.upper, point) for point in (x, other)]
    assert float((slopes[0] - slopes[1]).norm()) <= problem.upper_smoothness * float((x - other).norm()) * (1 + 1e-9)


def test_the_lower_level_is_solved_to_the_distance_asked_for(problem):
    x, theta = problem.start
    exact = problem.solved(theta, x, 1e-10).x
    for accuracy in (1e-1, 1e-4):
        found = problem.solved(theta, x, accuracy)
        assert float((found.x - exact).norm()) <= accuracy
        assert found.iterations <= problem.solved(theta, x, accuracy / 10).iterations


def test_wrong_constants_end_in_one_line(monkeypatch):
    monkeypatch.setattr("fisherexp.problems.bilevel.MOST", 50)
    with pytest.raises(ArithmeticError, match="after 50 iterations"):
        solve_lower(lambda x: 3 * x, torch.ones(2), 1.0, 1.0, 1e-3)


def test_the_quadratic_is_solved_by_least_squares():
    problem = BilevelQuadratic(n=30, m=4).load(0)
    x, theta = problem.start
    torch.testing.assert_close(problem.solved(theta, x, 1e-10).x, problem.solution_of_lower(theta), rtol=0, atol=1e-9)
    instance = problem.instance
    best = torch.linalg.lstsq(instance["A1"], instance["b1"]).solution
    gram = instance["A2"].T @ instance["A3"]
    theta = torch.linalg.solve(gram, instance["A2"].T @ (instance["b2"] - instance["A2"] @ best))
    assert problem.evaluate(theta)["gap"] == pytest.approx(0, abs=1e-9)
    assert problem.evaluate(theta + 0.1)["gap"] > 1e-4


def test_filters_and_images(tmp_path):
    filters = cosine_filters().flatten(1)
    torch.testing.assert_close(filters @ filters.T, torch.eye(8, dtype=torch.float64))
    assert float(filters.sum(1).abs().max()) < 1e-14
    problem = TotalVariation(2, 16, 0.1, 0.05, 0.05).load(3)
    clean = problem.instance["clean"]
    steps = (clean - clean.roll(-1, 3)).square() + (clean - clean.roll(-1, 2)).square()
    torch.testing.assert_close(problem.experts(clean, [differences()])[0], (steps + 0.05**2).sqrt().sum())
    assert 0 <= float(clean.min()) < float(clean.max()) <= 1
    found = problem.evaluate(problem.start[1])
    assert found["psnr"] > found["noisy_psnr"] + 2
    assert found["noisy_psnr"] == pytest.approx(20, abs=1)
    problem.leave_files(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"denoised.png", "denoised.pdf"}


def test_learned_filters_begin_as_the_fixed_ones_and_have_mean_zero(tmp_path):
    fixed, learned = (FieldsOfExperts(1, 8, 0.1, 0.1, 0.05, learn=learn).load(0) for learn in ("weights", "filters"))
    clean = fixed.instance["clean"]
    thetas = fixed.start[1], learned.start[1]
    assert [len(theta) for theta in thetas] == [8, 72]
    torch.testing.assert_close(learned.lower(clean, thetas[1]), fixed.lower(clean, thetas[0]))
    moved = thetas[1] + 0.3 * torch.randn(72, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    filters = torch.cat(learned.groups(moved))
    assert float(filters.sum((1, 2)).abs().max()) < 1e-14
    norms = moved[8:].reshape(8, 8).norm(dim=1)  # the basis is orthonormal
    torch.testing.assert_close(filters.flatten(1).norm(dim=1), norms)
    assert float(learned.lower(clean, moved)) != pytest.approx(float(fixed.lower(clean, moved[:8])), rel=1e-3)
    learned.evaluate(moved)
    learned.leave_files(tmp_path)
    assert {file.stem for file in tmp_path.iterdir()} == {"denoised", "filters"}


def test_images_of_a_data_set_are_the_other_source():
    digits = TotalVariation(2, 8, 0.1, 0.1, 0.05, pictures=Digits()).load(0)
    train = digits.pictures.train.inputs.flatten(1).double()
    clean = digits.instance["clean"].flatten(1)
    scale = float(train.max()) / float(clean.max())
    assert 0 <= float(clean.min()) < float(clean.max()) <= 1
    assert all(float((train - scale * image).abs().sum(1).min()) < 1e-9 for image in clean)
    assert digits.about()["of"] == digits.pictures.title
    with pytest.raises(DataError, match=r"data\.images=2 data\.size=9: .* has 1[0-9]* images of 8 x 8 pixels"):
        TotalVariation(2, 9, 0.1, 0.1, 0.05, pictures=Digits()).load(0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TotalVariation(1, 400, 0.1, 0.1, 0.1), r"data\.size=400"),
        (lambda: LogisticRidge(train=900), r"data\.train=900: at most 898"),
        (lambda: LogisticRidge(start=-9.0), r"data\.start=-9"),
        (lambda: BilevelQuadratic(3, 4), r"data\.m=4"),
    ],
)
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()

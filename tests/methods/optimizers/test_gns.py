"""GNS against its loop written out with dense matrices in float64, and what it must do on quadratics and without H."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev
from torch.nn import functional as F

from fisherexp.methods.optimizers.gns import GNSOptimizer, curvature_of, solver

KINDS = ("exact", "ggn", "empirical_fisher", "weighted_gn")
STEPS = 20


def network(*hidden: int) -> nn.Module:
    torch.manual_seed(1)
    widths = [4, *hidden, 3]
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1]).double()


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (12,), generator=generator)


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def function_of(model: nn.Module, x: torch.Tensor):
    """Logits as a function of the flat weights."""
    names, shapes = zip(*[(n, p.shape) for n, p in model.named_parameters()], strict=True)
    sizes = [s.numel() for s in shapes]

    def logits(vector):
        parts = vector.split(sizes)
        return functional_call(model, {n: t.view(s) for n, t, s in zip(names, parts, shapes, strict=True)}, (x,))

    return logits


def matrix(kind: str, logits, place: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The named curvature from autograd's Jacobian."""
    if kind == "exact":
        return hessian(lambda v: F.cross_entropy(logits(v), y))(place)
    jacobian, p = jacrev(logits)(place), logits(place).softmax(1)
    inner = {"weighted_gn": torch.diag_embed(p), "ggn": torch.diag_embed(p) - p[:, :, None] * p[:, None, :]}
    score = p - F.one_hot(y, 3)
    inner["empirical_fisher"] = score[:, :, None] * score[:, None, :]
    return torch.einsum("ncp,ncd,ndq->pq", jacobian, inner[kind], jacobian) / len(y)


@pytest.mark.parametrize("kind", KINDS)
def test_the_operator_is_the_matrix_of_its_name(kind):
    (x, y), model = samples(), network(5)
    expected = matrix(kind, function_of(model, x), flat(model), y)
    torch.testing.assert_close(curvature_of(kind, model, x, y).dense(at_once=7), expected)


def test_a_sampled_fisher_is_the_empirical_one_of_drawn_labels():
    (x, y), model = samples(), network(5)
    torch.manual_seed(4)
    found = curvature_of("sampled_fisher", model, x, y).dense()
    torch.manual_seed(4)
    drawn = torch.multinomial(model(x).softmax(1), 1).squeeze(1)
    torch.testing.assert_close(found, matrix("empirical_fisher", function_of(model, x), flat(model), drawn))


def test_the_weighted_matrix_exceeds_the_exact_one_of_a_linear_model():
    (x, y), model = samples(), network()
    weighted, exact = (matrix(k, function_of(model, x), flat(model), y) for k in ("weighted_gn", "exact"))
    assert torch.linalg.eigvalsh(weighted - exact).min() > -1e-12
    assert torch.linalg.eigvalsh(exact - weighted).min() < -1e-3  # the control: and not the other way


def closure_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor):
    def closure():
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return closure


def stepped(model: nn.Module, optimizer: GNSOptimizer, kind: str, steps: int) -> tuple[torch.Tensor, list[float]]:
    (x, y), places, radii = samples(), [], []
    for _ in range(steps):
        optimizer.step(closure_of(model, x, y), solver_of=lambda: solver(curvature_of(kind, model, x, y), 1000))
        places.append(flat(model))
        radii.append(optimizer.param_groups[0]["radius"])
    return torch.stack(places), radii


def written_out(model: nn.Module, kind: str, radius: float) -> tuple[torch.Tensor, list[float]]:
    (x, y), places, radii = samples(), [], []
    logits = function_of(model, x)
    place = flat(model)

    def value(v):
        return F.cross_entropy(logits(v), y)

    for _ in range(STEPS):
        f, g = value(place), jacrev(value)(place)
        h = matrix(kind, logits, place, y)
        while True:
            damping = g.norm() / (radius + 1e-8)
            damped = h + damping * torch.eye(len(h))
            if torch.linalg.eigvalsh(damped).min() > 0:
                trial = place - torch.linalg.solve(damped, g)
                if f - value(trial) >= jacrev(value)(trial).norm() ** 2 / (8 * damping):
                    break
            radius /= 2
        radius, place = max(2 * radius, 1e-9), trial
        places.append(place)
        radii.append(radius)
    return torch.stack(places), radii


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_is_the_one_written_out_and_a_restored_one(kind, tmp_path):
    expected, radii = written_out(network(5), kind, 8.0)
    model = network(5)
    optimizer = GNSOptimizer(model.parameters(), radius=8.0)
    begun, found_radii = stepped(model, optimizer, kind, STEPS // 2)
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    ended, more = stepped(model, optimizer, kind, STEPS // 2)
    # Where the damping is nearly nothing, rounding grows along directions that hardly change the loss.
    torch.testing.assert_close(torch.cat([begun, ended]), expected, rtol=1e-4, atol=1e-4)
    assert found_radii + more == pytest.approx(radii)
    assert any(b < a for a, b in pairwise([8.0, *radii]))  # some trials were refused
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    again = network(5)
    again.load_state_dict(weights)
    resumed = GNSOptimizer(again.parameters())
    resumed.load_state_dict(state)
    assert torch.equal(stepped(again, resumed, kind, STEPS // 2)[0], ended)


def test_conjugate_gradients_solve_the_same_system():
    (x, y), model = samples(), network(5)
    operator = curvature_of("ggn", model, x, y)
    gradient = torch.randn(operator.dim, generator=torch.Generator().manual_seed(0)).double()
    dense, iterative = (solver(operator, limit)(gradient, 0.05) for limit in (1000, 1))
    torch.testing.assert_close(iterative, dense, rtol=1e-5, atol=1e-6)


def test_a_matrix_with_a_negative_eigenvalue_is_found():
    (x, y), model = samples(), network(5)
    operator = curvature_of("exact", model, x, y)
    values, vectors = torch.linalg.eigh(operator.dense())
    assert values[0] < -1e-3
    assert solver(operator, 1000)(vectors[:, 0], -values[0].item() / 2) is None
    assert solver(operator, 1)(vectors[:, 0], -values[0].item() / 2) is None
    assert solver(operator, 1000)(vectors[:, 0], -2 * values[0].item()) is not None


def quadratic(weights: nn.Parameter, h: torch.Tensor):
    def closure():
        weights.grad = (h @ weights).detach()
        return (weights @ h @ weights / 2).detach()

    return closure


def test_without_curvature_it_is_the_normalized_gradient_step():
    weights, h = nn.Parameter(torch.tensor([3.0, -4.0]).double()), torch.eye(2).double()
    optimizer = GNSOptimizer([weights], radius=0.25)
    optimizer.step(quadratic(weights, h), solver_of=lambda: lambda g, damping: g / damping)
    torch.testing.assert_close(weights.detach(), torch.tensor([3.0, -4.0]).double() * (1 - 0.25 / 5))


def test_on_a_quadratic_the_radius_doubles_and_the_step_tends_to_newtons():
    h = torch.diag(torch.tensor([1.0, 10.0, 100.0])).double()
    weights = nn.Parameter(torch.ones(3).double())
    optimizer, losses = GNSOptimizer([weights], radius=0.01), []
    dense = lambda: lambda g, damping: torch.linalg.solve(h + damping * torch.eye(3).double(), g)  # noqa: E731
    for step in range(1, 15):
        losses.append(optimizer.step(quadratic(weights, h), solver_of=dense).item())
        assert optimizer.param_groups[0]["radius"] == 0.01 * 2**step
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-12 * losses[0]


def test_a_step_that_is_refused_forty_times_is_not_taken():
    weights = nn.Parameter(torch.ones(2).double())
    optimizer = GNSOptimizer([weights], radius=1.0)
    optimizer.step(quadratic(weights, torch.eye(2).double()), solver_of=lambda: lambda g, damping: -g)  # uphill
    assert torch.equal(weights.detach(), torch.ones(2).double())
    (group,) = optimizer.param_groups
    assert (group["solves"], group["rejected"], group["radius"]) == (40, 1, 2.0**-40)


def test_at_a_gradient_within_the_tolerance_it_stays():
    weights = nn.Parameter(torch.full((2,), 1e-3).double())
    optimizer = GNSOptimizer([weights], tolerance=0.01)
    optimizer.step(quadratic(weights, torch.eye(2).double()), solver_of=None)
    assert torch.equal(weights.detach(), torch.full((2,), 1e-3).double())

"""Sven's steps against the pseudo-inverse of the whole Jacobian, least squares, and closed forms."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

from fisherexp.curvature import PerSampleGradients
from fisherexp.methods.optimizers.sven import Sven, SvenOptimizer, residuals_of, row_weights

STEPS, BATCH = 22, 8


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def batches(steps: int = STEPS):
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        x = torch.randn(BATCH, 4, generator=generator, dtype=torch.float64)
        yield x, torch.randint(3, (BATCH,), generator=generator)


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def stepped(model, optimizer, given) -> torch.Tensor:
    gradients, places = PerSampleGradients(model), []
    for x, y in given:
        optimizer.step(gradients=gradients(x, y))
        places.append(flat(model))
    return torch.stack(places)


def written_out(model, given, *, lr, rank, rtol, power, scaling, alpha, decay) -> tuple[torch.Tensor, set[int]]:
    """The definition: autograd's Jacobian of the residuals, torch's SVD of it, every step from the whole matrix."""
    average, places, ranks = torch.zeros_like(flat(model)), [], set()
    for x, y in given:
        parameters = dict(model.named_parameters())

        def residuals(values, x=x, y=y):
            return F.cross_entropy(functional_call(model, values, (x,)), y, reduction="none") ** (power / 2)

        jacobian = torch.cat([part.flatten(1) for part in jacrev(residuals)(parameters).values()], 1).detach()
        if scaling == "rows":
            average = alpha * average + (1 - alpha) * jacobian.mean(0) ** 2
            jacobian = jacobian / (average.sqrt() + 1e-8)
        u, s, vh = torch.linalg.svd(jacobian, full_matrices=False)
        kept = (s > rtol * s[0])[:rank].sum()
        ranks.add(int(kept))
        step = vh[:kept].T @ ((u[:, :kept].T @ residuals(parameters).detach()) / s[:kept])
        if scaling == "step":
            average = alpha * average + (1 - alpha) * step**2
            step = step / (average.sqrt() + 1e-8)
        place = (1 - lr * decay) * flat(model) - lr * step
        with torch.no_grad():
            nn.utils.vector_to_parameters(place, model.parameters())
        places.append(place)
    return torch.stack(places), ranks


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 8, "rtol": 0.3},
        {"rank": None, "power": 1.0},
        {"rank": 8, "scaling": "rows", "rtol": 0.05},
        {"rank": 6, "scaling": "step", "lr": 0.01},
    ],
)
def test_every_step_is_the_one_written_out_and_a_restored_one(options, tmp_path):
    given = {"lr": 0.05, "rtol": 1e-3, "power": 2.0, "scaling": "none", "alpha": 0.9} | options
    expected, ranks = written_out(network(), batches(), decay=0.1, **given | {"rank": given["rank"] or BATCH // 2})
    model = network()
    found = stepped(model, SvenOptimizer(list(model.parameters()), weight_decay=0.1, **given), batches())
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
    if given["rtol"] > 0.01:
        assert len(ranks) > 1  # the subspace changes
    first, second, whole = network(), network(), list(batches())
    optimizer = SvenOptimizer(list(first.parameters()), weight_decay=0.1, **given)
    stepped(first, optimizer, whole[:9])
    torch.save([first.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    second.load_state_dict(weights)
    resumed = SvenOptimizer(list(second.parameters()), lr=1.0)
    resumed.load_state_dict(state)
    assert torch.equal(stepped(second, resumed, whole[9:]), found[9:])


def regression(samples: int, weights: int):
    """A linear model whose errors are solved exactly, and its gradients for loss ½ (f - y)²."""
    torch.manual_seed(0)
    model = nn.Linear(weights, 1, bias=False).double()
    return model, torch.randn(samples, weights).double(), torch.randn(samples, 1).double()


@pytest.mark.parametrize("samples", [4, 30])
def test_of_a_linear_model_one_step_is_least_squares(samples):
    """With fewer samples than weights the errors vanish, by a step in the span of the inputs; with more it is the
    Gauss–Newton step, which here is the natural gradient's."""
    model, x, y = regression(samples, 10)
    before, error = model.weight.detach().clone(), y - model(x).detach()
    optimizer = SvenOptimizer([model.weight], lr=1.0, rank=samples, rtol=1e-7, power=1.0)
    optimizer.step(gradients=PerSampleGradients(model, loss="gaussian")(x, y))
    expected = torch.linalg.lstsq(x, error, driver="gelsd").solution.T
    torch.testing.assert_close(model.weight - before, expected, rtol=1e-6, atol=1e-8)
    if samples < 10:
        torch.testing.assert_close(model(x), y, rtol=1e-6, atol=1e-7)


def test_of_one_sample_it_is_polyaks_step_and_of_rank_one_the_top_singular_direction():
    rows = torch.randn(1, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = row_weights(rows @ rows.T, torch.tensor([2.0]), 1, 0.0)
    torch.testing.assert_close(weights @ rows, 2 * rows[0] / rows.square().sum())
    rows = torch.randn(6, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(rows)
    residuals = torch.arange(6.0, dtype=torch.float64)
    expected = vh[0] * (u[:, 0] @ residuals) / s[0]
    torch.testing.assert_close(row_weights(rows @ rows.T, residuals, 1, 0.0) @ rows, expected)


def test_a_sample_without_loss_is_solved():
    residuals, slopes = residuals_of(torch.tensor([0.0, 4.0]), 1.0)
    assert residuals.tolist() == [0.0, 2.0]
    assert slopes.tolist() == [0.0, 0.25]


def test_there_is_one_group():
    groups = [{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [nn.Parameter(torch.zeros(1))]}]
    with pytest.raises(ValueError, match="one group"):
        SvenOptimizer(groups, lr=1.0)


def test_the_method_gives_its_options_to_the_optimizer():
    options = {"rank": 3, "rtol": 0.1, "power": 1.0, "scaling": "step", "alpha": 0.5}
    method = Sven(network(), epochs=1, lr=0.2, weight_decay=0.3, cpu_seconds=None, **options)
    (group,) = method.configure_optimizers().param_groups
    assert group.items() >= (options | {"lr": 0.2, "weight_decay": 0.3}).items()

"""K-FAC and EKFAC against dense Kronecker products in float64, step by step, and restored in the middle."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import KFACAccumulator, PerSampleGradients
from fisherexp.methods.optimizers.ekfac import EKFAC, EigenvalueCorrectedOptimizer
from fisherexp.methods.optimizers.k_fac import KFAC, KroneckerOptimizer

STEPS, EVERY, INVERSE = 20, 2, 3
GIVEN = {"lr": 0.05, "damping": 0.1, "decay": 0.7, "inverse_every": INVERSE, "momentum": 0.5, "weight_decay": 0.1}
OPTIMIZERS = {"k_fac": KroneckerOptimizer, "ekfac": EigenvalueCorrectedOptimizer}


def network() -> nn.Module:
    """Two linear layers, and a norm between them that has no factors."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3, bias=False)).double()


def batches():
    generator = torch.Generator().manual_seed(3)
    for _ in range(STEPS):
        x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
        yield x, torch.randint(3, (8,), generator=generator)


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def stepped(model: nn.Module, optimizer: KroneckerOptimizer, given, begin: int = 0) -> torch.Tensor:
    factors, sampled, places = KFACAccumulator(model), PerSampleGradients(model), []
    for step, (x, y) in enumerate(given, begin):
        if step % EVERY == 0:
            factors.clear()
            factors.update(x, y)
            optimizer.observe(factors.result())
            if isinstance(optimizer, EigenvalueCorrectedOptimizer):
                optimizer.observe_samples(sampled(x, y).rows())
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        places.append(flat(model))
    return torch.stack(places)


def of_layers(model: nn.Module, x: torch.Tensor, y: torch.Tensor):
    """Inputs with a one for the bias (N, in), output gradients (N, out) of single samples, for both layers."""
    first = model[0](x)
    hidden = torch.tanh(model[1](first))
    outputs = model[3](hidden)
    loss = F.cross_entropy(outputs, y, reduction="sum")
    gradients = torch.autograd.grad(loss, [first, outputs])
    inputs = torch.cat([x, torch.ones(len(x), 1).to(x)], 1), hidden
    return [(a.detach(), g) for a, g in zip(inputs, gradients, strict=True)]


def written_out(model: nn.Module, corrected: bool) -> torch.Tensor:
    """The definition with one dense curvature matrix a layer."""
    kept: list[dict] = [{}, {}]
    velocity, places, seen = None, [], 0
    for step, (x, y) in enumerate(batches()):
        if step % EVERY == 0:
            seen += 1
            share = max(1 / seen, 1 - GIVEN["decay"])
            for layer, (a, g) in zip(kept, of_layers(model, x, y), strict=True):
                for name, rows in (("A", a), ("B", g)):
                    layer[name] = (1 - share) * layer.get(name, 0) + share * rows.T @ rows / len(x)
                if (seen - 1) % INVERSE == 0:
                    (left, u), (right, v) = torch.linalg.eigh(layer["B"]), torch.linalg.eigh(layer["A"])
                    layer["basis"], layer["S"] = torch.kron(u, v), torch.kron(left, right)
                if corrected:
                    gradients = torch.einsum("no,ni->noi", g, a).flatten(1)  # of single samples
                    part = max(1 / ((seen - 1) % INVERSE + 2), 1 - GIVEN["decay"])
                    moments = (gradients @ layer["basis"]).square().mean(0)
                    layer["S"] = (1 - part) * layer["S"] + part * moments
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        weight, bias, scale, shift, last = (p.grad for p in model.parameters())
        first = torch.cat([weight, bias[:, None]], 1)
        solved = []
        for layer, gradient in zip(kept, (first, last), strict=True):
            basis, damped = layer["basis"], layer["S"] + GIVEN["damping"]
            solved.append((basis @ torch.diag(1 / damped) @ basis.T @ gradient.flatten()).view_as(gradient))
        step_of = torch.cat([solved[0][:, :-1].flatten(), solved[0][:, -1], scale, shift, solved[1].flatten()])
        velocity = step_of if velocity is None else GIVEN["momentum"] * velocity + step_of
        place = (1 - GIVEN["lr"] * GIVEN["weight_decay"]) * flat(model) - GIVEN["lr"] * velocity
        with torch.no_grad():
            nn.utils.vector_to_parameters(place.clone(), model.parameters())
        places.append(place)
    return torch.stack(places)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_step_is_the_one_written_out_and_a_restored_one(name, tmp_path):
    model, make = network(), OPTIMIZERS[name]
    found = stepped(model, make(dict(model.named_parameters()), **GIVEN), batches())
    torch.testing.assert_close(found, written_out(network(), name == "ekfac"), rtol=1e-9, atol=1e-9)
    middle = 9  # between two observations, and between two eigendecompositions
    first, second, whole = network(), network(), list(batches())
    optimizer = make(dict(first.named_parameters()), **GIVEN)
    stepped(first, optimizer, whole[:middle])
    torch.save([first.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    second.load_state_dict(weights)
    resumed = make(dict(second.named_parameters()), lr=1.0, damping=1.0)
    resumed.load_state_dict(state)
    assert torch.equal(stepped(second, resumed, whole[middle:], middle), found[middle:])


def test_corrected_eigenvalues_are_the_best_diagonal_in_the_basis():
    """Closer to the Fisher of the layer than K-FAC's own, in Frobenius norm, for moments of that batch alone."""
    model, (x, y) = network(), next(batches())
    a, g = of_layers(model, x, y)[1]
    gradients = torch.einsum("no,ni->noi", g, a).flatten(1)
    fisher = gradients.T @ gradients / len(x)
    (left, u), (right, v) = torch.linalg.eigh(g.T @ g / len(x)), torch.linalg.eigh(a.T @ a / len(x))
    basis, eigenvalues = torch.kron(u, v), torch.kron(left, right)
    factors = KFACAccumulator(model)
    factors.update(x, y)
    optimizer = EigenvalueCorrectedOptimizer(dict(model.named_parameters()), **GIVEN | {"decay": 0.999})
    optimizer.observe(factors.result())
    optimizer.observe_samples(PerSampleGradients(model)(x, y).rows())
    half = optimizer.state[model[3].weight]["scales"].flatten()  # K-FAC's count as one observation
    torch.testing.assert_close(half, (eigenvalues + (gradients @ basis).square().mean(0)) / 2)
    error = lambda s: (basis @ torch.diag(s) @ basis.T - fisher).norm()  # noqa: E731
    assert error(2 * half - eigenvalues) < error(half) < error(eigenvalues)


@pytest.mark.parametrize(("method", "optimizer"), [(KFAC, KroneckerOptimizer), (EKFAC, EigenvalueCorrectedOptimizer)])
def test_the_method_gives_its_options_to_the_optimizer(method, optimizer):
    options = {"damping": 0.3, "decay": 0.8, "inverse_every": 7, "momentum": 0.4}
    loop = {"epochs": 1, "lr": 0.2, "weight_decay": 0.3, "cpu_seconds": None}
    made = method(network(), labels="sampled", factor_every=3, **loop, **options).configure_optimizers()
    assert type(made) is optimizer
    (group,) = made.param_groups
    assert group.items() >= (options | {"lr": 0.2, "weight_decay": 0.3}).items()

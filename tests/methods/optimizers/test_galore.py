"""GaLore and its natural variant against Adam, dense inverses and the properties of projectors."""

import copy

import pytest
import torch
from torch import nn

from fisherexp.methods.optimizers.galore import GaLoreAdamW, leading_directions, project, project_back
from fisherexp.methods.optimizers.m_fac import MFACOptimizer
from fisherexp.methods.optimizers.natural_galore import NaturalGaLoreAdamW

SHAPES = [(7, 4), (4, 7), (5, 5)]
NATURAL = {"history": 3, "damping": 0.1, "clear_history": False}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(optimizer, parameter: nn.Parameter, gradients) -> torch.Tensor:
    """Where the parameter is behind each step."""
    places = []
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        places.append(parameter.detach().clone())
    return torch.stack(places)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 99])
def test_the_projection_is_the_best_of_its_rank(shape, rank):
    gradient, used = random(*shape), min(rank, *shape)
    basis = leading_directions(gradient, rank)
    torch.testing.assert_close(basis.T @ basis, torch.eye(used, dtype=torch.float64))
    low = project(gradient, basis)
    assert low.shape == ((shape[0], used) if shape[0] >= shape[1] else (used, shape[1]))
    back = project_back(low, basis, gradient.shape)
    # Eckart–Young: what is lost are the other singular values
    lost = torch.linalg.svdvals(gradient)[used:].square().sum()
    torch.testing.assert_close((gradient - back).square().sum(), lost)
    torch.testing.assert_close(project(back, basis), low)


@pytest.mark.parametrize("shape", SHAPES)
def test_of_full_rank_it_is_adam_in_a_rotated_basis(shape):
    gradients = [random(*shape, seed=seed) for seed in range(5)]
    mine, rotated = (nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for _ in range(2))
    found = run(GaLoreAdamW([mine], lr=0.01, rank=99, every=1000, scale=1.0, eps=1e-8), mine, gradients)
    basis = leading_directions(gradients[0], 99)
    if shape[0] >= shape[1]:
        forth, back = (lambda g: g @ basis), (lambda places: places @ basis.T)
    else:
        forth, back = (lambda g: basis.T @ g), (lambda places: basis @ places)
    expected = run(torch.optim.Adam([rotated], lr=0.01), rotated, map(forth, gradients))
    torch.testing.assert_close(found, back(expected))


@pytest.mark.parametrize("shape", [(6,), (2, 3, 2, 2), ()])
def test_what_is_no_matrix_takes_the_steps_of_adamw(shape):
    gradients = [random(*shape, seed=seed) for seed in range(4)]
    mine, peer = (nn.Parameter(random(*shape, seed=9)) for _ in range(2))
    options = {"lr": 0.01, "weight_decay": 0.1, "eps": 1e-6}
    found = run(GaLoreAdamW([mine], rank=2, every=2, scale=0.25, **options), mine, gradients)
    torch.testing.assert_close(found, run(torch.optim.AdamW([peer], **options), peer, gradients))


@pytest.mark.parametrize("shape", [(7, 4), (4, 7)])
def test_its_state_is_as_small_as_promised(shape):
    parameter, rank = nn.Parameter(random(*shape)), 2
    optimizer = GaLoreAdamW([parameter], lr=0.01, rank=rank, every=2, scale=1.0)
    run(optimizer, parameter, [random(*shape)])
    floats = sum(v.numel() for v in optimizer.state[parameter].values() if isinstance(v, torch.Tensor))
    assert floats == 2 * rank * max(shape) + rank * min(shape)


def test_the_subspace_is_that_of_the_newest_gradient_every_so_often():
    parameter, gradients = nn.Parameter(random(7, 4)), [random(7, 4, seed=seed) for seed in range(5)]
    optimizer = GaLoreAdamW([parameter], lr=0.01, rank=2, every=3, scale=1.0)
    for t, gradient in enumerate(gradients):
        run(optimizer, parameter, [gradient])
        expected = leading_directions(gradients[t // 3 * 3], 2)
        torch.testing.assert_close(optimizer.state[parameter]["basis"], expected)


@pytest.mark.parametrize("history", [1, 3])
def test_the_natural_gradient_is_that_of_the_dense_inverse(history):
    gradients = [random(4, 2, seed=seed) for seed in range(5)]
    options = NATURAL | {"history": history}
    optimizer = NaturalGaLoreAdamW([nn.Parameter(gradients[0])], lr=0.01, rank=2, every=9, scale=1.0, **options)
    for t, low in enumerate(gradients):
        found = optimizer.preconditioned(0, low)
        kept = torch.stack([g.flatten() for g in gradients[max(0, t + 1 - history) : t + 1]])
        fisher = 0.1 * torch.eye(8, dtype=torch.float64) + kept.T @ kept
        torch.testing.assert_close(found.flatten(), torch.linalg.solve(fisher, low.flatten()))
    if history == 1:
        torch.testing.assert_close(found, low / (0.1 + low.square().sum()))


def test_with_heavy_damping_it_is_galore():
    gradients = [random(7, 4, seed=seed) for seed in range(6)]
    mine, peer = (nn.Parameter(random(7, 4, seed=9)) for _ in range(2))
    options = {"lr": 0.01, "rank": 2, "every": 2, "scale": 1.0, "eps": 1e-30}
    heavy = NATURAL | {"damping": 1e9}
    found = run(NaturalGaLoreAdamW([mine], **options, **heavy), mine, gradients)
    torch.testing.assert_close(found, run(GaLoreAdamW([peer], **options), peer, gradients), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("clear", "kept"), [(True, 1), (False, 3)])
def test_history_of_another_subspace_is_kept_or_cleared(clear, kept):
    parameter = nn.Parameter(random(7, 4))
    options = NATURAL | {"clear_history": clear}
    optimizer = NaturalGaLoreAdamW([parameter], lr=0.01, rank=2, every=2, scale=1.0, **options)
    run(optimizer, parameter, [random(7, 4, seed=seed) for seed in range(3)])
    rows = optimizer.windows[0].gradients
    assert int((rows != 0).any(1).sum()) == kept


@pytest.mark.parametrize(
    "make",
    [
        lambda p: MFACOptimizer(p, lr=0.01, window=3, damping=1e-3, momentum=0.5),
        lambda p: GaLoreAdamW(p, lr=0.01, rank=2, every=2, scale=1.0),
        lambda p: NaturalGaLoreAdamW(p, lr=0.01, rank=2, every=2, scale=1.0, **NATURAL),
    ],
)
def test_a_saved_state_goes_on_exactly(make, tmp_path):
    """In float32, whose 64-bit Gram matrix torch would round when it is loaded."""
    gradients = [random(7, 4, seed=seed).float() for seed in range(7)]
    whole = nn.Parameter(torch.zeros(7, 4))
    expected = run(make([whole]), whole, gradients)[-1]
    first = nn.Parameter(torch.zeros(7, 4))
    optimizer = make([first])
    run(optimizer, first, gradients[:4])
    torch.save({"optimizer": optimizer.state_dict(), "weights": first.detach()}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    second = nn.Parameter(saved["weights"])
    resumed = make([second])
    untouched = copy.deepcopy(saved["optimizer"])
    resumed.load_state_dict(saved["optimizer"])
    assert torch.equal(run(resumed, second, gradients[4:])[-1], expected)
    for number, window in untouched["windows"].items():
        assert torch.equal(saved["optimizer"]["windows"][number]["gradients"], window["gradients"])

"""Gradients of single samples, their clipped and noised sum, and the noise of an ε."""

import sys

import pytest
import torch
from torch import nn

from fisherexp.adapters import LoRA, adapters, inject
from fisherexp.data.batch import Batch
from fisherexp.methods.finetuning.private_gradients import noise_of_epsilon, private_sum, sample_gradients
from fisherexp.objectives.classification import Classification


@pytest.fixture(scope="module")
def case():
    """A model with LoRA whose B is trained, a batch, and the gradients of its samples."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    inject(model, "linear", lambda weight: LoRA(weight, rank=2, alpha=3))
    for adapter in adapters(model):
        nn.init.normal_(adapter.up)
        adapter.down.requires_grad_(False)
    batch = Batch(torch.randn(7, 6, dtype=torch.float64), torch.arange(7) % 3)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return model, batch, trained, sample_gradients(model, trained, Classification(), batch)


def test_each_sample_has_the_gradient_of_its_own_loss(case):
    model, batch, trained, found = case
    assert [*trained] == ["0.adapters.0.up", "2.adapters.0.up"]
    for i in range(7):
        loss = Classification().loss(model(batch.inputs[i : i + 1]), batch.targets[i : i + 1])
        for name, gradient in zip(trained, torch.autograd.grad(loss, trained.values()), strict=True):
            torch.testing.assert_close(found[name][i], gradient)


def test_a_gradient_of_b_is_an_outer_product(case):
    """‖∂ℓ_i/∂B‖ = α / r ‖g_i‖ ‖A x_i‖, with g_i the gradient of the layer's output."""
    model, batch, _, found = case
    outputs = model(batch.inputs)
    last = torch.autograd.grad(Classification().loss(outputs, batch.targets, reduction="sum"), outputs)[0]
    hidden = model[1](model[0](batch.inputs))
    lengths = 1.5 * last.norm(dim=1) * (hidden @ model[2].adapters[0].down.T).norm(dim=1)
    torch.testing.assert_close(found["2.adapters.0.up"].flatten(1).norm(dim=1), lengths)


def test_the_sum_is_of_gradients_no_longer_than_the_clip(case):
    found = case[3]
    flat = torch.cat([gradient.flatten(1) for gradient in found.values()], dim=1)
    clip = flat.norm(dim=1).median().item()
    wanted = (flat * (clip / flat.norm(dim=1)).clamp(max=1)[:, None]).sum(0)
    total = private_sum(found, clip, 0.0)
    torch.testing.assert_close(torch.cat([part.flatten() for part in total.values()]), wanted)
    unclipped = private_sum(found, 1e9, 0.0)
    torch.testing.assert_close(torch.cat([part.flatten() for part in unclipped.values()]), flat.sum(0))
    assert not torch.allclose(wanted, flat.sum(0))  # the control


def test_noise_has_the_deviation_of_multiplier_times_clip():
    torch.manual_seed(0)
    noise = private_sum({"w": torch.zeros(1, 20_000)}, 3.0, 0.5)["w"]
    assert noise.std().item() == pytest.approx(1.5, rel=0.03)
    assert noise.mean().item() == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("both", [True, False])
def test_noise_on_both_factors_multiplies_in_their_product(both):
    """E‖(B + ξ_B)(A + ξ_A) - B A‖² = s² (m ‖A‖² + n ‖B‖² + s² m r n), s = σ C; of noise on B alone the first term."""
    torch.manual_seed(0)
    (m, r, n), s = (5, 3, 7), 0.5 * 1.2
    up, down = torch.randn(m, r, dtype=torch.float64), torch.randn(r, n, dtype=torch.float64)
    shapes = {"up": (1, m, r)} | ({"down": (1, r, n)} if both else {})
    squares = []
    for _ in range(4000):
        noise = private_sum({name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}, 1.2, 0.5)
        moved = (up + noise["up"]) @ (down + noise.get("down", 0))
        squares.append((moved - up @ down).square().sum())
    wanted = s**2 * m * down.square().sum()
    if both:
        wanted += s**2 * n * up.square().sum() + s**4 * m * r * n
    torch.testing.assert_close(torch.stack(squares).mean(), wanted, rtol=0.04, atol=0)
    assert s**4 * m * r * n > 0.08 * wanted or not both  # control: the term of both is above what is tolerated


def test_an_epsilon_without_opacus_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus.accountants.utils", None)
    with pytest.raises(ModuleNotFoundError, match=r"method.epsilon needs opacus: pip install 'fisherexp\[privacy\]'"):
        noise_of_epsilon(3.0, 1e-5, 0.1, 10)


def test_the_noise_spends_the_epsilon_and_no_more():
    accountants = pytest.importorskip("opacus.accountants")
    noise = noise_of_epsilon(6.0, 1e-5, 0.1, 100)
    spent = accountants.PRVAccountant()
    spent.history = [(noise, 0.1, 100)]
    assert 5.9 < spent.get_epsilon(delta=1e-5) <= 6.0
    spent.history = [(noise / 1.2, 0.1, 100)]
    assert spent.get_epsilon(delta=1e-5) > 6.0  # the control

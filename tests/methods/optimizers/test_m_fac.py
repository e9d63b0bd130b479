"""Steps of M-FAC against the dense inverse in float64, and its closed forms."""

import pytest
import torch
from torch import nn

from fisherexp.curvature import LowRankFisher
from fisherexp.methods.optimizers.m_fac import MFACOptimizer
from fisherexp.methods.optimizers.windowed import newest_preconditioned

LR = 0.1


def stepped(gradients: torch.Tensor, lr: float = LR, **options) -> torch.Tensor:
    """Where zeros (d,) come to by one step a row of gradients (t, d); parameters of two shapes."""
    dim = gradients.shape[1]
    parameters = [nn.Parameter(torch.zeros(2, 2).to(gradients)), nn.Parameter(torch.zeros(dim - 4).to(gradients))]
    optimizer = MFACOptimizer(parameters, lr=lr, **options)
    places = []
    for gradient in gradients:
        parameters[0].grad, parameters[1].grad = gradient[:4].view(2, 2), gradient[4:]
        optimizer.step()
        places.append(torch.cat([p.detach().flatten() for p in parameters]))
    return torch.stack(places)


def random(rows: int, dim: int = 9) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("damping", [1e-2, 1.0])
def test_every_step_is_the_dense_one(window, damping):
    gradients, place = random(7), torch.zeros(9, dtype=torch.float64)
    for t, found in enumerate(stepped(gradients, window=window, damping=damping)):
        kept = gradients[max(0, t + 1 - window) : t + 1]
        fisher = damping * torch.eye(9, dtype=torch.float64) + kept.T @ kept / window
        place = place - LR * torch.linalg.solve(fisher, gradients[t])
        torch.testing.assert_close(found, place, rtol=1e-10, atol=1e-10)


def test_until_it_is_full_a_window_is_a_smaller_one_with_rate_and_damping_scaled():
    """F⁻¹ g = m Gᵀ (m λ I + G Gᵀ)⁻¹ e: only η m and λ m count."""
    gradients = random(5)
    small = stepped(gradients, window=6, lr=0.4, damping=0.02)
    torch.testing.assert_close(stepped(gradients, window=48, lr=0.05, damping=0.0025), small, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_a_step_promises_no_more_than_the_rate_times_the_window(size):
    """gᵀ F⁻¹ g < m, nearly reached by gradients of any size that the damping does not hide."""
    gradients = size * random(4)
    moves = torch.diff(stepped(gradients, window=6, damping=1e-9 * size**2), dim=0)
    promised = -(moves * gradients[1:]).sum(dim=1)
    assert (promised < LR * 6).all()
    torch.testing.assert_close(promised, torch.full_like(promised, LR * 6), rtol=1e-6, atol=0.0)


def test_small_gradients_that_are_much_alike_keep_their_digits_in_single_precision():
    gradients = 0.01 * (random(1) + 0.05 * random(8))
    found = stepped(gradients.float(), window=6, damping=1e-5)[-1]
    exact = stepped(gradients.float().double(), window=6, damping=1e-5)[-1]
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4 * exact.abs().max().item())


def test_a_sliding_window_is_the_static_fisher_of_its_rows_in_any_order():
    gradients = random(9)
    window = LowRankFisher.empty(4, 9, dtype=torch.float64)
    for gradient in gradients:
        found = newest_preconditioned(window, gradient, 1e-3)
    static = LowRankFisher(gradients[[6, 8, 5, 7]].clone())
    torch.testing.assert_close(found, static.solve(gradients[8], 1e-3), rtol=1e-9, atol=1e-9)


def test_with_one_row_the_step_is_the_gradient_scaled():
    gradient = random(1)
    expected = -LR * gradient / (0.5 + gradient.square().sum())
    torch.testing.assert_close(stepped(gradient, window=1, damping=0.5), expected)


def test_with_heavy_damping_the_step_is_along_the_gradient():
    gradients = random(5)
    moves = torch.diff(stepped(gradients, window=4, damping=1e8), dim=0)
    torch.testing.assert_close(moves * 1e8, -LR * gradients[1:], rtol=1e-5, atol=1e-5)


def test_momentum_is_an_average_and_weight_decay_a_part_of_the_gradient():
    gradients = random(2)
    plain = stepped(gradients, window=4, damping=1.0)
    averaged = stepped(gradients, window=4, damping=1.0, momentum=0.75)
    torch.testing.assert_close(averaged[0], 0.25 * plain[0])
    torch.testing.assert_close(averaged[1] - averaged[0], 0.25 * (plain[1] - plain[0]) + 0.75 * 0.25 * plain[0])
    decayed = stepped(gradients, window=4, damping=1.0, weight_decay=0.3)
    same = stepped(torch.stack([gradients[0], gradients[1] + 0.3 * plain[0]]), window=4, damping=1.0)
    torch.testing.assert_close(decayed, same)


def test_there_is_one_window():
    groups = [{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [nn.Parameter(torch.zeros(1))]}]
    with pytest.raises(ValueError, match="one group"):
        MFACOptimizer(groups, lr=LR, window=2, damping=1.0)


def test_a_gradient_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="NaN or infinity"):
        stepped(torch.full((1, 9), float("nan")), window=2, damping=1.0)

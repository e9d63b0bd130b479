"""NormalFloat: the grid, the published NF4, decoding, sizes, and the integer programme over formats."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import norm

from fisherexp.methods.compression.bit_budget import assign
from fisherexp.quantization.normal_float import NormalFloat, grid

torch.manual_seed(0)
W = torch.randn(100, 37, dtype=torch.float64)
PLAIN = {"scale_bits": 8, "block": 16, "group": 16}


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_grid_has_all_values_a_zero_and_ends_of_one(bits):
    points = grid(bits)
    assert len(points) == 2**bits
    assert (points[1:] > points[:-1]).all()
    assert (points == 0).sum() == 1
    assert points[0] == -1
    assert points[-1] == 1
    assert (points > 0).sum() == 2 ** (bits - 1)
    assert points[-2] == pytest.approx(
        norm.ppf(1 - (1 - 0.9677083) - 0.4677083 / 2 ** (bits - 1)) / norm.ppf(0.9677083)
    )


def test_four_bits_are_the_published_nf4():
    """Values of appendix E of the QLoRA paper, to the digits of its grid."""
    published = [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0]
    published += [0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]
    torch.testing.assert_close(grid(4), torch.tensor(published, dtype=torch.float64), atol=1e-4, rtol=0)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_decoding_takes_the_nearest_point_and_is_idempotent_on_what_it_decodes(bits):
    form = NormalFloat(bits, **PLAIN)
    decoded = form(W)
    assert decoded.shape == W.shape
    blocks = torch.nn.functional.pad(W.flatten(), (0, -W.numel() % 16)).view(-1, 16)
    scales = form.decoded_scales(blocks.abs().amax(1))
    nearest = (blocks[:, :, None] - scales[:, None, None] * grid(bits)).abs().amin(2).flatten()[: W.numel()]
    torch.testing.assert_close((decoded.flatten() - W.flatten()).abs(), nearest)
    # A point of the grid in a block whose scale is one, which is stored exactly.
    points = grid(bits)[torch.randint(2**bits, W.shape)].index_fill(1, torch.tensor([0, 20]), 1.0)
    torch.testing.assert_close(NormalFloat(bits, block=37)(points), points)


def test_more_bits_lose_less_and_scales_are_near():
    losses = [(NormalFloat(bits, **PLAIN)(W) - W).norm().item() for bits in (2, 3, 4, 8)]
    assert losses == sorted(losses, reverse=True)
    scales = torch.rand(100, dtype=torch.float64)
    for bits in (2, 4, 8):
        found = NormalFloat(4, scale_bits=bits, group=16).decoded_scales(scales)
        assert (found - scales).abs().max() <= 0.5 / (2**bits - 1) + 1e-6


@pytest.mark.parametrize("weight", [torch.zeros(40), torch.full((40,), 0.3), torch.tensor([2.0])])
def test_degenerate_blocks(weight):
    torch.testing.assert_close(NormalFloat(2)(weight), weight)


def test_size_counts_weights_scales_and_both_floats():
    assert NormalFloat(3, 8, "float32", 64, 256).size == 3 + 8 / 64 + 64 / (64 * 256)
    assert NormalFloat(4, 4, "bfloat16", 16, 16).size == 4 + 4 / 16 + 32 / 256


def official(weight, bits, scale_bits, block, group, floats):
    """The official code's two levels: scales over the smallest of the matrix, as unsigned integers up to each group's
    largest; then the nearest point of the grid, the lower one of two."""
    scales = weight.view(-1, group, block).abs().amax(2)
    offset = scales.min()
    largest = (scales - offset).amax(1, keepdim=True).to(floats).double()
    most = 2**scale_bits - 1
    stored = ((scales - offset) * (most / largest)).round().clamp(0, most) * (largest / most) + offset
    points = grid(bits)
    edges = (points[1:] + points[:-1]) / 2
    blocks = weight.view(-1, group, block)
    return (points[torch.bucketize(blocks / stored[:, :, None], edges)] * stored[:, :, None]).view_as(weight)


@pytest.mark.parametrize(("bits", "scale_bits", "floats"), [(3, 8, "float32"), (4, 4, "bfloat16"), (2, 2, "float16")])
def test_the_offset_of_the_matrix_is_that_of_the_official_code(bits, scale_bits, floats):
    weight = W.flatten()[: 16 * 16 * 14].view(56, 64) * torch.linspace(0.1, 1, 56, dtype=torch.float64)[:, None]
    expected = official(weight, bits, scale_bits, 16, 16, getattr(torch, floats))
    form = {"scale_bits": scale_bits, "scale_type": floats, "block": 16, "group": 16}
    theirs, ours = (NormalFloat(bits, **form, offset=offset) for offset in ("matrix", "group"))
    torch.testing.assert_close(theirs(weight), expected, rtol=1e-12, atol=1e-12)
    assert (ours(weight) - expected).abs().max() > 1e-3
    width = torch.finfo(getattr(torch, floats)).bits
    assert theirs.size == bits + scale_bits / 16 + width / 256
    assert ours.size == theirs.size + width / 256


COSTS = np.array([[9.0, 4, 1], [100, 30, 2], [5, 4, 3], [80, 9, 8]])
WEIGHTS, SIZES = np.array([10, 20, 40, 10]), np.array([2.1, 3.2, 4.3])


@pytest.mark.parametrize("budget", [2.1, 2.5, 3.0, 3.7, 4.2])
def test_the_programme_finds_the_best_of_all_assignments_within_the_budget(budget):
    found = assign(COSTS, WEIGHTS, SIZES, budget)
    allowed = [c for c in product(range(3), repeat=4) if WEIGHTS @ SIZES[list(c)] <= budget * WEIGHTS.sum() + 1e-9]
    assert tuple(found) in allowed
    best = min(sum(COSTS[i, c] for i, c in enumerate(choice)) for choice in allowed)
    assert sum(COSTS[i, c] for i, c in enumerate(found)) == pytest.approx(best)


def test_a_budget_for_everything_and_none_give_each_its_best():
    costs = np.random.default_rng(0).random((5, 3))
    for budget in (4.3, 9.0, None):
        assert assign(costs, np.arange(1, 6), SIZES, budget) == costs.argmin(axis=1).tolist()


def test_a_budget_below_the_smallest_format_is_refused():
    with pytest.raises(ValueError, match=r"a budget of 2 bits per weight is below the smallest format's 2\.100"):
        assign(COSTS, WEIGHTS, SIZES, 2.0)

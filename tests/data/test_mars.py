"""Friedman's regression problems at points worked out by hand."""

import math

import pytest
import torch

from fisherexp.data.mars import mars_add, mars_mult, noisy, offset_inputs, uniform_inputs


def test_outcomes_by_hand():
    corner = torch.tensor([[0.0, 0.5, 0.0, 0.0, 0.0], [0.25, 0.5, 1.0, 1.0, 1.0]], dtype=torch.float64)
    assert mars_add(corner).tolist() == pytest.approx([0.1 + 2, 0.1 * math.e + 2 + 3 + 2 + 1])
    expected = [20 * 0.05**2, 10 * math.sin(math.pi / 8) + 20 * 0.95**2 + 10 + 5]
    assert mars_mult(corner).tolist() == pytest.approx(expected)
    assert mars_mult(corner, center=0.5)[0].item() == pytest.approx(20 * 0.25)


def test_draws_follow_the_generator_and_their_ranges():
    draw = torch.Generator().manual_seed(0)
    inputs = uniform_inputs(4000, draw, features=7)
    again = uniform_inputs(4000, torch.Generator().manual_seed(0), features=7)
    assert torch.equal(inputs, again)
    assert inputs.mean().item() == pytest.approx(0.5, abs=0.01)
    moved = offset_inputs(inputs, 0.2, draw) - inputs
    assert moved.abs().max() <= 0.2
    assert moved.std().item() == pytest.approx(0.2 / math.sqrt(3), rel=0.02)
    assert torch.equal(offset_inputs(inputs, 0.0, draw), inputs)
    assert noisy(torch.zeros(100_000), 3.0, draw).std().item() == pytest.approx(3, rel=0.02)

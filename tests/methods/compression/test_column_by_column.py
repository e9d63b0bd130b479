"""Rounding and pruning column by column: against least squares, and the cases in which nothing is to be made up for."""

from functools import partial

import pytest
import torch

from fisherexp.methods.compression.column_by_column import column_by_column, inverse_factor
from fisherexp.methods.compression.gptq import gptq
from fisherexp.methods.compression.sparsegpt import sparsegpt
from fisherexp.methods.compression.wanda import wanda_scores
from fisherexp.quantization import Integer, two_of_four

torch.manual_seed(0)
W = torch.randn(6, 40, dtype=torch.float64)
X = torch.randn(300, 40, dtype=torch.float64) @ torch.randn(40, 40, dtype=torch.float64)
R = X.T @ X / len(X)
DIAGONAL = torch.diag(torch.rand(40, dtype=torch.float64) + 0.1)


def loss(found: torch.Tensor) -> torch.Tensor:
    return ((W - found) @ R * (W - found)).sum()


@pytest.mark.parametrize("fixed", [1, 5, 33])
def test_later_columns_are_the_least_squares_answer_to_the_earlier_ones(fixed):
    """The first columns are rounded, the others free: against torch.linalg.lstsq on the inputs themselves."""
    found = column_by_column(
        W, inverse_factor(R, 0.0), lambda j, rest: rest[:, 0].round() if j < fixed else rest[:, 0], multiple=4
    )
    given = X @ W.T - X[:, :fixed] @ found[:, :fixed].T
    best = torch.linalg.lstsq(X[:, fixed:], given).solution.T
    torch.testing.assert_close(found[:, fixed:], best, rtol=1e-6, atol=1e-6)
    plain = torch.cat([W[:, :fixed].round(), W[:, fixed:]], 1)
    assert loss(found) < loss(plain)


@pytest.mark.parametrize("multiple", [1, 5, 8, 40])
def test_how_columns_are_put_together_changes_nothing(multiple, monkeypatch):
    factor = inverse_factor(R, 0.01)
    whole = column_by_column(W, factor, lambda j, rest: rest[:, 0].round())
    monkeypatch.setattr("fisherexp.methods.compression.column_by_column.BLOCK", 8)
    torch.testing.assert_close(column_by_column(W, factor, lambda j, rest: rest[:, 0].round(), multiple), whole)


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(
    "form", [Integer(3), Integer(3, 16), Integer(4, 7, "asymmetric"), Integer(2, 16, "mx")], ids=str
)
def test_gptq_with_uncorrelated_inputs_is_rounding_to_nearest(form, act_order):
    assert inverse_factor(DIAGONAL.diagonal(), 0.01).shape == (40,)
    for moment in (DIAGONAL, DIAGONAL.diagonal()):
        parts = gptq(W, moment, form, act_order=act_order)
        assert torch.equal(form.decode(parts, W.shape), form(W))
    assert not torch.equal(form.decode(gptq(W, R, form, act_order=act_order), W.shape), form(W))  # the control


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("form", [Integer(3), Integer(3, 16), Integer(3, None, "asymmetric")], ids=str)
def test_gptq_loses_less_of_the_outputs_and_more_of_the_weights_than_rounding(form, act_order):
    found = form.decode(gptq(W, R, form, act_order=act_order), W.shape)
    assert loss(found) < 0.7 * loss(form(W))
    assert (W - found).norm() > (W - form(W)).norm()


def test_gptq_takes_the_scale_of_a_group_when_it_is_reached_and_that_of_a_row_before():
    form = Integer(3, 16, scale_type="float64")
    scales = gptq(W, R, form)["scales"]
    untouched, _ = form.scales(form.blocks(W))
    torch.testing.assert_close(scales[:, 0], untouched[:, 0])
    assert not torch.allclose(scales[:, 1], untouched[:, 1])
    whole = Integer(3, scale_type="float64")
    torch.testing.assert_close(gptq(W, R, whole)["scales"], whole.scales(whole.blocks(W))[0])


def test_inputs_that_never_occur_are_rounded_as_they_are():
    moment = R.clone()
    moment[[3, 20]] = 0
    moment[:, [3, 20]] = 0
    form = Integer(3)
    found = form.decode(gptq(W, moment, form), W.shape)
    assert torch.equal(found[:, [3, 20]], form(W)[:, [3, 20]])


@pytest.mark.parametrize("scale", [1.0, 1e-4])
@pytest.mark.parametrize("pattern", ["two_four", "unstructured"])
def test_the_scale_of_inputs_counts_nothing_and_those_that_never_occur_go_first(pattern, scale):
    """As dead units do beside units of small outputs."""
    moment = R.clone()
    moment[::2] = 0
    moment[:, ::2] = 0
    rounded = Integer(3).decode(gptq(W, scale * moment, Integer(3)), W.shape)
    torch.testing.assert_close(rounded, Integer(3).decode(gptq(W, moment, Integer(3)), W.shape))
    pruned = sparsegpt(W, scale * moment, pattern)
    assert not pruned[:, ::2].any()
    torch.testing.assert_close(pruned[:, 1::2], W[:, 1::2])


def test_sparsegpt_with_uncorrelated_inputs_is_wanda():
    expected = W * two_of_four(wanda_scores(W, DIAGONAL.diagonal()))
    torch.testing.assert_close(sparsegpt(W, DIAGONAL, damping=0.0), expected)
    assert not torch.allclose(expected, W * two_of_four(W.abs()))  # the control


@pytest.mark.parametrize(
    "prune", [sparsegpt, partial(sparsegpt, pattern="unstructured", sparsity=0.3)], ids=["two_four", "unstructured"]
)
def test_sparsegpt_has_the_zeros_it_should_and_makes_up_for_them(prune):
    found = prune(W, R)
    zeros = found == 0
    if prune is sparsegpt:
        assert (zeros.view(6, 10, 4).sum(-1) == 2).all()
        plain = W * two_of_four(wanda_scores(W, R.diagonal()))
        assert loss(found) < 0.8 * loss(plain)
    else:
        assert zeros.sum() == int(0.3 * W.numel())
    assert loss(found) < loss(W * ~zeros)

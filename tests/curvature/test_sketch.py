"""Random projections of gradients: linear, of the right size, and the same without forming the gradient."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from fisherexp.curvature.sketch import PAIRS, SMALL, Sketch

LARGE, TINY = (96, 8, 9), (5, 2, 3)


def sketch(shape, seed=0):
    return Sketch(torch.zeros(shape, dtype=torch.float64), torch.Generator().manual_seed(seed))


def test_a_large_gradient_is_kept_as_a_few_numbers_and_a_small_one_whole():
    assert sketch(LARGE).of(torch.randn(LARGE).double()).shape == (PAIRS,)
    small = torch.randn(SMALL // 64, 64).double()
    torch.testing.assert_close(sketch(small.shape).of(small), small.flatten())


def test_squared_norm_is_right_in_the_mean():
    """Of a random gradient and of one of rank one; oracle: the norm itself."""
    for gradient in (torch.randn(LARGE).double(), torch.ones(LARGE).double()):
        squares = torch.stack([sketch(LARGE, seed).of(gradient).square().sum() for seed in range(400)])
        spread = float(squares.std()) / 400**0.5
        assert float(squares.mean()) == pytest.approx(float(gradient.square().sum()), abs=5 * spread)


@pytest.mark.parametrize("shape", [LARGE, TINY])
def test_sketches_of_what_is_not_formed_are_those_of_the_gradient(shape):
    rows, columns, made = shape[0], shape[1] * shape[2], sketch(shape)
    g, x, index = torch.randn(7, rows), torch.randn(7, columns), torch.tensor([1, 4, 1, 0, 2, 2, 3])
    g, x = g.double(), x.double()
    torch.testing.assert_close(made.of_outer(g, x), made.of((g.mT @ x).reshape(shape)))
    dense = x.new_zeros(rows, columns).index_add_(0, index, x)
    torch.testing.assert_close(made.of_rows(index, x, rows), made.of(dense.reshape(shape)))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_sketch_of_a_convolution_is_that_of_its_weight_gradient(dims):
    shape, options = (70, 16, 4, 3, 2)[: dims + 2], {"stride": 2, "padding": 1, "dilation": 2}
    options |= {"stride": (2, 1, 1)[:dims]} if dims > 1 else {}
    convolution = partial(getattr(F, f"conv{dims}d"), **options)
    x, weight = torch.randn(3, 16, *(9, 8, 7)[:dims]).double(), torch.randn(shape).double().requires_grad_()
    y = convolution(x, weight)
    g = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, weight, g)
    made = Sketch(weight.detach().expand(shape), torch.Generator().manual_seed(0))
    assert not made.whole
    torch.testing.assert_close(made.of_convolution(g, x, shape, convolution), made.of(expected))


def test_linear():
    made, a, b = sketch(LARGE), torch.randn(LARGE).double(), torch.randn(LARGE).double()
    torch.testing.assert_close(made.of(2 * a - b), 2 * made.of(a) - made.of(b))

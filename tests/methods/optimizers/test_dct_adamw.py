"""DCT-AdamW against SciPy's transforms, a trajectory written out on whole matrices, and AdamW in another basis."""

import pytest
import scipy.fft
import torch
from optimizer_trajectories import drawn, places, places_restored
from torch import nn

from fisherexp.methods.optimizers.cosine_basis import basis_rows, dct2, dct3
from fisherexp.methods.optimizers.dct_adamw import DCTAdamW, largest_rows, quantized

SHAPES = [(9, 5), (5, 9), (6, 6)]
GRADIENTS = 24


def scipy_transform(basis: str, x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(scipy.fft.dct(x.numpy(), type={"dct2": 2, "dct3": 3}[basis], axis=0, norm="ortho"))


@pytest.mark.parametrize("n", [1, 2, 7, 8])
@pytest.mark.parametrize(("basis", "fast"), [("dct2", dct2), ("dct3", dct3)])
def test_basis_and_fast_transform_are_scipys(n, basis, fast):
    x = drawn(n, 3)
    torch.testing.assert_close(basis_rows(basis, n, x) @ x, scipy_transform(basis, x))
    torch.testing.assert_close(fast(x), scipy_transform(basis, x))
    torch.testing.assert_close(fast(x[:, 0]), scipy_transform(basis, x)[:, 0])


@pytest.mark.parametrize("basis", ["dct2", "dct3", "random", "identity"])
def test_a_basis_is_orthonormal_and_always_the_same(basis):
    rows = basis_rows(basis, 11, drawn(1))
    torch.testing.assert_close(rows @ rows.mT, torch.eye(11, dtype=torch.float64))
    assert torch.equal(rows, basis_rows(basis, 11, drawn(1, seed=5)))


@pytest.mark.parametrize("norm", [1, 2])
def test_what_is_left_out_is_what_the_other_rows_weigh(norm):
    """And with ℓ2 norms never more than the share of the rows left out."""
    gradient, basis = drawn(8, 30), basis_rows("dct2", 8, drawn(1))
    coordinates = basis @ gradient
    chosen = largest_rows(coordinates, 3, norm)
    lost = (gradient - basis[chosen].mT @ coordinates[chosen]).square().sum()
    others = [i for i in range(8) if i not in chosen.tolist()]
    torch.testing.assert_close(lost, coordinates[others].square().sum())
    assert chosen.tolist() == sorted(chosen.tolist())
    expected = sorted(range(8), key=lambda i: -coordinates[i].abs().pow(norm).sum())[:3]
    assert chosen.tolist() == sorted(expected)
    if norm == 2:
        assert lost <= (1 - 3 / 8) * gradient.square().sum()


def written_out(gradients, start, *, lr, rank, every, basis, norm, decay, eps, feedback):
    """The definition on whole matrices: moments of all rows, of which only those of chosen ones are not zero."""
    weights, left = start.clone(), start.shape[0] <= start.shape[1]
    turn = (lambda m: m) if left else (lambda m: m.T)
    first, second, error = (torch.zeros_like(turn(start)) for _ in range(3))
    mask, found, sets = None, [], set()
    for t, gradient in enumerate(gradients, 1):
        rows = scipy_transform(basis, turn(gradient)) + (error if feedback else 0)
        if t == 1 or t % every == 0:
            scores = rows.abs().pow(norm).sum(1)
            mask = (scores >= scores.sort(descending=True).values[rank - 1])[:, None]
            sets.add(tuple(mask.flatten().tolist()))
        error = rows * ~mask
        first = (0.9 * first + 0.1 * rows) * mask
        second = (0.999 * second + 0.001 * rows**2) * mask
        step = mask * (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + eps)
        inverse = {"dct2": "dct3", "dct3": "dct2"}[basis]
        weights = (1 - lr * decay) * weights - lr * turn(scipy_transform(inverse, step))
        found.append(weights)
    return torch.stack(found), len(sets)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("basis", ["dct2", "dct3"])
@pytest.mark.parametrize("options", [{}, {"every": 3, "norm": 2}, {"fast": True, "error_feedback": "exact"}])
def test_every_step_is_the_one_written_out_while_the_directions_change(shape, basis, options, tmp_path):
    given = {"lr": 0.01, "rank": 2, "every": 1, "basis": basis, "norm": 1, "eps": 1e-6} | options
    start, gradients = drawn(*shape, seed=99), [drawn(*shape, seed=seed) for seed in range(GRADIENTS)]
    plain = {name: given[name] for name in ("lr", "rank", "every", "basis", "norm", "eps")}
    expected, sets = written_out(gradients, start, **plain, decay=0.1, feedback="error_feedback" in given)
    assert sets > 3
    weights = nn.Parameter(start.clone())
    make = lambda parameters: DCTAdamW(parameters, weight_decay=0.1, **given)  # noqa: E731
    found = places(make([weights]), weights, gradients)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(places_restored(make, start, gradients, tmp_path / "state.pt"), found)


def test_without_rotation_moments_go_to_other_directions():
    """The control: a trajectory of its own."""
    start, gradients = drawn(6, 9), [drawn(6, 9, seed=seed) for seed in range(5)]
    ends = []
    for rotate in (True, False):
        weights = nn.Parameter(start.clone())
        ends.append(places(DCTAdamW([weights], lr=0.01, rank=2, rotate=rotate), weights, gradients))
    assert torch.equal(ends[0][0], ends[1][0])
    assert (ends[0][-1] - ends[1][-1]).abs().max() > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_of_full_rank_it_is_adamw_in_the_basis(shape):
    """Which is AdamW itself for the identity basis alone."""
    gradients, tall = [drawn(*shape, seed=seed) for seed in range(5)], shape[0] > shape[1]
    basis = basis_rows("dct2", min(shape), drawn(1))
    forth = (lambda g: g @ basis.T) if tall else (lambda g: basis @ g)
    back = (lambda w: w @ basis) if tall else (lambda w: basis.T @ w)
    mine, same, peer, turned = (nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for _ in range(4))
    found = places(DCTAdamW([mine], lr=0.01, rank=99), mine, gradients)
    expected = places(torch.optim.AdamW([turned], lr=0.01, weight_decay=0), turned, [forth(g) for g in gradients])
    torch.testing.assert_close(found, back(expected))
    adamw = places(torch.optim.AdamW([peer], lr=0.01, weight_decay=0), peer, gradients)
    torch.testing.assert_close(places(DCTAdamW([same], lr=0.01, rank=99, basis="identity"), same, gradients), adamw)
    assert (found - adamw).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(7,), (), (32_000, 2)])
def test_vectors_and_vocabularies_take_steps_of_adamw(shape):
    gradients = [drawn(*shape, seed=seed) for seed in range(3)]
    mine, peer = (nn.Parameter(drawn(*shape, seed=9)) for _ in range(2))
    found = places(DCTAdamW([mine], lr=0.01, rank=1, weight_decay=0.1), mine, gradients)
    peers = places(torch.optim.AdamW([peer], lr=0.01, weight_decay=0.1), peer, gradients)
    torch.testing.assert_close(found, peers)


def test_a_kernel_is_a_matrix_with_its_outputs_as_rows():
    kernel, matrix = nn.Parameter(drawn(4, 3, 2, 2)), nn.Parameter(drawn(4, 3, 2, 2).flatten(1))
    found = places(DCTAdamW([kernel], lr=0.01, rank=2), kernel, [drawn(4, 3, 2, 2, seed=5)])
    expected = places(DCTAdamW([matrix], lr=0.01, rank=2), matrix, [drawn(4, 3, 2, 2, seed=5).flatten(1)])
    torch.testing.assert_close(found.flatten(2), expected)


def bytes_of_state(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> int:
    return sum(t.nbytes for t in optimizer.state[parameter].values() if isinstance(t, torch.Tensor))


@pytest.mark.parametrize(("feedback", "more"), [("none", 0), ("int8", 20 * 8 + 8 * 4), ("exact", 4 * 20 * 8)])
def test_its_state_is_as_small_as_promised_and_restored_bit_for_bit(feedback, more, tmp_path):
    start, gradients = drawn(20, 8).float(), [drawn(20, 8, seed=seed).float() for seed in range(GRADIENTS)]
    weights = nn.Parameter(start.clone())
    make = lambda parameters: DCTAdamW(parameters, lr=0.01, rank=2, error_feedback=feedback)  # noqa: E731
    optimizer = make([weights])
    found = places(optimizer, weights, gradients)
    assert bytes_of_state(optimizer, weights) == 4 * 2 * 2 * 20 + 8 * 2 + more
    assert torch.equal(places_restored(make, start, gradients, tmp_path / "state.pt"), found)


def test_one_byte_is_off_by_half_a_step_at_most():
    rows = torch.cat([drawn(3, 50), torch.zeros(1, 50, dtype=torch.float64)])
    whole, step = quantized(rows)
    assert whole.dtype == torch.int8
    assert whole.abs().max() == 127
    assert ((whole * step - rows).abs() <= step / 2 * (1 + 1e-9)).all()


def test_there_is_no_fast_transform_to_a_random_basis():
    with pytest.raises(ValueError, match="fast: there is no fast transform to basis=random"):
        DCTAdamW([nn.Parameter(drawn(2, 2))], lr=0.1, rank=1, basis="random", fast=True)

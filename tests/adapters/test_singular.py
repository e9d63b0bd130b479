"""PiSSA: its factors against the singular value decomposition. DoRA: its gradient against the formula."""

import pytest
import torch

from fisherexp.adapters import DoRA, LoRA, PiSSA
from fisherexp.adapters.dora import row_lengths
from fisherexp.adapters.lora import scaling
from fisherexp.adapters.pissa import singular_factors

torch.manual_seed(0)
WEIGHT = torch.randn(6, 9, dtype=torch.float64)
VALUES = torch.linalg.svdvals(WEIGHT)


@pytest.mark.parametrize("rank", [1, 3, 6])
@pytest.mark.parametrize("alpha", [None, 2.0])
def test_pissa_begins_with_the_leading_part(rank, alpha):
    pissa = PiSSA(WEIGHT, rank, alpha)
    rest = WEIGHT - pissa.scale * pissa.up @ pissa.down
    expected = VALUES.clone()
    expected[:rank] = 0
    torch.testing.assert_close(torch.linalg.svdvals(rest), expected.sort(descending=True).values)
    gram = torch.diag(VALUES[:rank]) / pissa.scale
    torch.testing.assert_close(pissa.up.T @ pissa.up, gram)
    torch.testing.assert_close(pissa.down @ pissa.down.T, gram)
    assert torch.equal(pissa.weight(WEIGHT), WEIGHT)


def test_another_part_of_the_spectrum():
    """Minor components (SoMA) are one line."""

    class Minor(PiSSA):
        @staticmethod
        def part(rank):
            return slice(-rank, None)

    minor = Minor(WEIGHT, 2)
    torch.testing.assert_close(torch.linalg.svdvals(minor.up @ minor.down)[:2], VALUES[-2:])
    up, down = singular_factors(WEIGHT, slice(None))
    torch.testing.assert_close(up @ down, WEIGHT)


def test_scalings():
    assert scaling(None, 4) == 1
    assert scaling(8, 4) == 2
    assert scaling(8, 4, rank_stabilized=True) == 4


def test_at_the_start_only_one_factor_of_lora_has_a_gradient_which_is_that_of_the_weight_projected():
    lora, slope = LoRA(WEIGHT, 2, 6.0), torch.randn_like(WEIGHT)
    (lora.weight(WEIGHT) * slope).sum().backward()
    assert not lora.down.grad.any()
    torch.testing.assert_close(lora.up.grad, 3.0 * slope @ lora.down.T)


def test_at_the_start_lora_is_the_weight_to_the_bit_and_taken_off_again_it_is_the_weight():
    weight = WEIGHT.float()
    lora = LoRA(weight, 2, 6.0)
    assert torch.equal(lora.weight(weight), weight)
    with torch.no_grad():
        lora.up.normal_()
        merged = lora.weight(weight)
        assert (merged - weight).abs().max() > 0.1
        torch.testing.assert_close(merged - lora.scale * lora.up @ lora.down, weight, rtol=0, atol=1e-6)


def test_with_a_square_orthogonal_factor_a_step_of_sgd_is_one_of_the_whole_weight():
    lora = LoRA(WEIGHT, 9, 18.0)
    lora.down.data = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64)).Q
    (lora.weight(WEIGHT) * WEIGHT.sin()).sum().backward()
    with torch.no_grad():
        lora.up -= 0.1 * lora.up.grad
    torch.testing.assert_close(lora.weight(WEIGHT), WEIGHT - 0.1 * 2.0**2 * WEIGHT.sin())


def test_in_the_gradient_of_dora_norms_are_constants():
    dora, slope = DoRA(WEIGHT, 2, 3.0), torch.randn_like(WEIGHT)
    with torch.no_grad():
        dora.up.normal_()
        dora.magnitude.mul_(torch.rand(6, dtype=torch.float64) + 0.5)
        moved = WEIGHT + 1.5 * dora.up @ dora.down
        norms = moved.norm(dim=1)
    (dora.weight(WEIGHT) * slope).sum().backward()
    torch.testing.assert_close(dora.magnitude.grad, (moved * slope).sum(1) / norms)
    torch.testing.assert_close(dora.up.grad, 1.5 * ((dora.magnitude / norms)[:, None] * slope) @ dora.down.T)
    with pytest.raises(ValueError, match="1 of 2 rows of the weight are zero"):
        DoRA(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), 1)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
def test_row_lengths_are_those_of_the_sum(dtype, rtol):
    weight, left, right = (torch.randn(size, dtype=dtype) for size in ((7, 9), (7, 3), (3, 9)))
    expected = torch.linalg.vector_norm(weight.double() + left.double() @ right.double(), dim=1)
    torch.testing.assert_close(row_lengths(weight, left, right).double(), expected, rtol=rtol, atol=0)
    gone = row_lengths(weight, -weight @ torch.linalg.pinv(right), right)  # what is left of a row, not NaN
    assert gone.isfinite().all()

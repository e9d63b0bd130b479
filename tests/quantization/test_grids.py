"""The four grids that go by the name of rounding: each against its published formula, element by element; bytes."""

import pytest
import torch
from torch.nn.functional import pad

from fisherexp.quantization import (
    Integer,
    Kept,
    Masked,
    NormalFloat,
    Plain,
    TwoFour,
    num_bytes,
    pack,
    two_of_four,
    unpack,
)

torch.manual_seed(0)
W = torch.randn(7, 40, dtype=torch.float64) * torch.logspace(-3, 3, 7, dtype=torch.float64)[:, None]
GRIDS = ["symmetric_full", "symmetric_restricted", "asymmetric", "mx"]


def by_formula(group: torch.Tensor, bits: int, grid: str) -> torch.Tensor:
    """One group of weights, as the table of fisherexp/quantization/integer.py has it, with scales of half precision."""
    half, top = 2 ** (bits - 1), group.abs().max()
    if grid == "symmetric_full":
        s = (2 * top / (2**bits - 1)).half().double()
        return (group / s).round().clamp(-half, half - 1) * s
    if grid == "symmetric_restricted":
        s = (top / (half - 1)).half().double()
        return (group / s).round().clamp(-half + 1, half - 1) * s
    if grid == "mx":
        s = 2.0 ** (torch.log2(top).floor() - bits + 2)
        return group.sign() * (group.abs() / s).round().clamp(max=half - 1) * s
    low, high = min(group.min(), 0), max(group.max(), 0)
    s = ((high - low) / (2**bits - 1)).half().double()
    zero = (-low / s).round()
    return ((group / s).round() + zero).clamp(0, 2**bits - 1).sub(zero) * s


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("bits", "group"), [(2, 16), (3, None), (4, 32), (8, 7)])
def test_each_grid_is_its_formula(bits, group, grid):
    form = Integer(bits, group, grid)
    width = group or 40
    for row, found in zip(W, form(W), strict=True):
        groups = pad(row, (0, -40 % width)).view(-1, width)
        expected = torch.cat([by_formula(each, bits, grid) for each in groups])[:40]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_the_grids_differ_at_two_bits():
    found = [Integer(2, 16, grid)(W) for grid in GRIDS]
    assert all(not torch.allclose(one, other) for n, one in enumerate(found) for other in found[:n])
    values = {grid: len(Integer(2, None, grid)(W)[3].unique()) for grid in GRIDS}
    assert values == {"symmetric_full": 4, "symmetric_restricted": 3, "asymmetric": 4, "mx": 3}


def test_rounding_a_row_group_commutes_with_scaling_the_row():
    """The mechanism behind UniQL's choice of where singular values go."""
    scales = 2.0 ** torch.arange(-3, 4, dtype=torch.float64)[:, None]
    form = Integer(4, 16, scale_type="float64")
    torch.testing.assert_close(form(scales * W), scales * form(W), rtol=1e-12, atol=0)


FORMS = [
    *(Integer(bits, group, grid) for grid in GRIDS for bits, group in ((2, 16), (3, None), (5, 32))),
    NormalFloat(4, None, "float16", 64),
    NormalFloat(3, 4, "bfloat16", 16, 4),
    NormalFloat(2, 8, "float32", 16, 4, "matrix"),
    TwoFour(),
    TwoFour(Integer(3, 16)),
    Masked(),
    Plain("bfloat16"),
    Kept(Plain("float32")),
]


@pytest.mark.parametrize("shape", [(7, 40), (5, 13), (1, 1)])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_what_is_stored_decodes_to_what_is_computed(form, shape):
    weight = W.flatten()[: shape[0] * shape[1]].view(shape)
    weight = weight * two_of_four(weight.abs())
    parts = form.encode(weight)
    assert torch.equal(form.decode(parts, shape), form(weight))
    again = {name: tensor.clone() for name, tensor in parts.items()}
    assert torch.equal(form.decode(again, shape), form(weight))
    assert ((form(weight) == 0) | (weight != 0)).all() or isinstance(form, NormalFloat | Integer)


@pytest.mark.parametrize(
    ("form", "bits"),
    [
        (Integer(3, 16), 3 + 16 / 16),
        (Integer(4, 32, "asymmetric"), 4 + (16 + 4) / 32),
        (Integer(2, 32, "mx"), 2 + 8 / 32),
        (NormalFloat(4, None, "float16", 64), 4 + 16 / 64),
        (NormalFloat(4), NormalFloat(4).size),
        (TwoFour(), 16 / 2 + 2 / 2),
        (TwoFour(Integer(4, 32)), 4 / 2 + 2 / 2 + 16 / 64),
        (Plain(), 16),
        (Kept(Plain()), 16 + 16 * (64 + 256) / (64 * 256)),
    ],
    ids=str,
)
def test_bytes_are_those_of_the_bits_that_are_claimed(form, bits):
    weight = torch.randn(64, 256)
    assert 8 * num_bytes(form.encode(weight)) == pytest.approx(bits * weight.numel(), abs=64)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [1, 7, 8, 1001])
def test_packed_numbers_come_back_and_take_no_more_than_their_bits(bits, count):
    codes = torch.randint(2**bits, (count,))
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-count * bits // 8)
    assert torch.equal(unpack(packed, bits, count), codes)
    with pytest.raises(ValueError, match=f"{bits} bits hold 0 to {2**bits - 1}"):
        pack(torch.tensor([2**bits]), bits)


@pytest.mark.parametrize("grid", GRIDS)
def test_zeros_stay_and_a_scale_beyond_its_type_is_refused(grid):
    assert torch.equal(Integer(3, 8, grid)(torch.zeros(3, 16)), torch.zeros(3, 16))
    if grid != "mx":
        with pytest.raises(ValueError, match="is beyond float16"):
            Integer(8, None, grid)(torch.full((1, 4), 1e9))


def test_two_of_four_keeps_the_largest_and_of_equal_ones_the_first():
    scores = torch.tensor([[1.0, 3, 2, 0, 5, 5, 5, 5, 1, 2, 3], [0, 0, 0, 0, 1, 2, 3, 4, 9, 0, 1]])
    expected = [[0, 1, 1, 0, 1, 1, 0, 0, 0, 1, 1], [1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 1]]
    assert two_of_four(scores).int().tolist() == expected


def test_torchao_rounds_to_the_same_integers():
    """An independent implementation of the symmetric grid, on groups."""
    ao = pytest.importorskip("torchao.quantization", reason="torchao is not installed (pip install 'fisherexp[peers]')")
    from torchao.quantization.quant_primitives import MappingType

    weight = torch.randn(16, 64)
    scale, zero = ao.choose_qparams_affine(
        weight, MappingType.ASYMMETRIC, (1, 32), torch.uint8, 0, 15, scale_dtype=torch.float32
    )
    codes = ao.quantize_affine(weight, (1, 32), scale, zero, torch.uint8, 0, 15)
    theirs = ao.dequantize_affine(codes, (1, 32), scale, zero, torch.uint8, 0, 15)
    ours = Integer(4, 32, "asymmetric", scale_type="float32")(weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)

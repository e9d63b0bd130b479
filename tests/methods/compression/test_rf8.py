"""RF8: its values in an octave, its errors, its edges; a model in bytes and back."""

import pytest
import torch
from torch import nn

from fisherexp.methods.compression.rf8 import loaded, stored
from fisherexp.methods.compression.rf8_format import LEVELS, decode, encode


def rounded(values: torch.Tensor, rounding: str = "nearest") -> torch.Tensor:
    return decode(*encode(values, rounding))


OCTAVE = 1 + torch.arange(4096) / 4096


@pytest.mark.parametrize(
    ("rounding", "levels", "largest_error"),
    [
        ("nearest", {1, 1.0625, 1.125, 1.25, 1.5, 1.75, 1.875}, 0.1081),
        ("truncate", {1, 1.0625, 1.125, 1.25, 1.5}, 0.25),
    ],
)
def test_values_and_errors_of_an_octave(rounding, levels, largest_error):
    found = rounded(OCTAVE, rounding)
    assert set(found[found < 2].tolist()) == levels
    error = (found / OCTAVE - 1).abs().max().item()
    assert 0.95 * largest_error < error < largest_error
    below = found <= OCTAVE
    assert below.all() == (rounding == "truncate")


@pytest.mark.parametrize("rounding", ["nearest", "truncate"])
def test_bytes_decoded_and_encoded_again_are_the_same(rounding):
    torch.manual_seed(0)
    values = torch.randn(20_000) ** 5
    values[:3] = torch.tensor([0.0, -0.0, 1.45 * values.abs().max()])  # rounds up to the next power
    codes, largest = encode(values, rounding)
    again, exponent = encode(decode(codes, largest), rounding)
    assert torch.equal(codes, again)
    assert largest == exponent
    assert codes.dtype == torch.uint8


def test_the_rule_of_the_code_by_plain_arithmetic():
    """First the nearest power of two by logarithms, then the same of the signed rest, at most four below."""
    torch.manual_seed(0)
    values = torch.randn(2000, dtype=torch.float64)
    first = 2 ** values.abs().log2().round()
    rest = values.abs() - first
    second = 2 ** rest.abs().clamp_min(1e-12).log2().round()
    expected = values.sign() * (first + torch.where(second >= first / 16, rest.sign() * second, 0))
    found = rounded(values)
    seen = found != 0  # the smallest are below the window
    assert seen.float().mean() > 0.99
    torch.testing.assert_close(found[seen].double(), expected[seen])


def test_edges_zero_the_smallest_exponent_and_what_has_no_code():
    lowest = 2.0 ** (1 - LEVELS)
    values = torch.tensor([1.0, -1.0, lowest, -lowest, lowest / 2, 0.0])
    codes, largest = encode(values)
    assert largest == 0
    assert decode(codes, largest).tolist() == [1.0, -1.0, lowest, -lowest, 0.0, 0.0]
    assert codes.tolist() == [15 * 8, 128 + 15 * 8, 8, 128 + 8, 0, 0]
    assert rounded(torch.zeros(2)).tolist() == [0, 0]
    assert torch.equal(rounded(2.0**-100 * OCTAVE), 2.0**-100 * rounded(OCTAVE))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="no infinity"):
            encode(torch.tensor([1.0, bad]))
    every = torch.tensor([code for code in range(256) if code % 128 >= 8 and code % 8 < 7], dtype=torch.uint8)
    assert len(set(decode(every, 3).tolist())) == 2 * 15 * 7
    assert torch.equal(encode(decode(every, 3))[0], every)


def test_a_model_is_a_byte_a_parameter_and_comes_back_as_it_was_stored(fitted, tmp_path):
    fit, source, _ = fitted("rf8", model=["model=small_cnn", "model.width=4"])
    fit.leave_files(tmp_path)
    file = (tmp_path / "weights.rf8").read_bytes()
    found, state = loaded(file), fit.model.state_dict()
    assert all(torch.equal(found[name], state[name]) for name in state)
    parameters = dict(fit.model.named_parameters())
    assert all(torch.equal(parameters[name], rounded(source[name])) for name in parameters)
    assert all(torch.equal(state[name], source[name]) for name in state.keys() - parameters.keys())
    count = sum(p.numel() for p in parameters.values())
    assert fit.outcome["metrics"]["stored_bytes"] == len(file) > count
    assert fit.outcome["metrics"]["largest_rounding_error"] < 10.8
    linear = nn.Linear(1000, 1000)
    assert 0 < len(stored(linear)) - 1_001_000 < 200  # the header

"""A layer that is cut to size computes what the whole one does, with fewer numbers."""

import pytest
import torch
from torch import nn

from fisherexp.quantization import CutLinear, Integer, Kept, Plain, StoredWeight, cut_to_size

ROWS, COLUMNS = torch.tensor([4, 0, 3]), torch.tensor([5, 1, 2, 6])


def with_zeros(bias: bool, rows=ROWS, columns=COLUMNS, values=None):
    """A layer that is zero outside some rows and columns, and how it is stored."""
    torch.manual_seed(0)
    layer, values = nn.Linear(8, 6, bias), values or Plain()
    form = Kept(values)
    stored = StoredWeight(
        (6, 8), form, form.assemble(values.encode(torch.randn(len(rows), len(columns))), rows, columns)
    )
    with torch.no_grad():
        layer.weight.copy_(stored.weight())
        if bias:
            layer.bias.mul_(torch.zeros(6).index_fill(0, rows, 1))
    return layer, stored


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("values", [Plain(), Integer(4, 2)])
@pytest.mark.parametrize("rows", [ROWS, torch.randperm(6)])
@pytest.mark.parametrize("columns", [COLUMNS, torch.randperm(8)])
def test_outputs_are_those_of_the_layer_with_zeros(bias, values, rows, columns):
    layer, stored = with_zeros(bias, rows, columns, values)
    model, x = nn.Sequential(layer, nn.GELU()), torch.randn(2, 5, 8, requires_grad=True)
    wanted = model(x)
    cut_to_size(model, {"0": stored})
    torch.testing.assert_close(model(x), wanted)
    assert isinstance(model[0], CutLinear)
    assert model[0].weight.shape == (len(rows), len(columns))
    assert (model[0].rows is None, model[0].columns is None) == (len(rows) == 6, len(columns) == 8)
    wanted, found = (torch.autograd.grad(y.square().sum(), x)[0] for y in (wanted, model(x)))
    torch.testing.assert_close(found, wanted)


def test_a_layer_that_is_stored_whole_is_refused_and_nothing_is_changed():
    layer, stored = with_zeros(True)
    model = nn.Sequential(layer, nn.Linear(6, 2))
    whole = StoredWeight((2, 6), Plain(), Plain().encode(model[1].weight.detach()))
    with pytest.raises(ValueError, match="1 is stored whole, as Plain: only uniql's Kept is cut"):
        cut_to_size(model, {"0": stored, "1": whole})
    assert model[0] is layer

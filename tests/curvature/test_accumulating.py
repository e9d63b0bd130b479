"""Every accumulator is filled by the same loop, and takes weights of samples or says that it cannot."""

import pytest
import torch
from torch import nn

from fisherexp.curvature import DiagonalAccumulator, KFACAccumulator, LowRankAccumulator, accumulate

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
INPUTS, LABELS = torch.randn(6, 4, dtype=torch.float64), torch.randint(2, (6,))
MADE = {
    "diagonal": lambda: DiagonalAccumulator(MODEL),
    "kfac": lambda: KFACAccumulator(MODEL),
    "low rank": lambda: LowRankAccumulator(MODEL, rows=4),
}


@pytest.mark.parametrize("name", MADE)
def test_the_loop_gives_it_every_batch(name):
    batches = [(INPUTS[:4], LABELS[:4]), (INPUTS[4:], LABELS[4:])]
    filled, expected = accumulate(MADE[name](), batches), MADE[name]()
    for batch in batches:
        expected.update(*batch)
    found = filled.sums()
    assert found.keys() == expected.sums().keys()
    for key, tensor in expected.sums().items():
        torch.testing.assert_close(found[key], tensor)
    by_name = [{"x": x, "labels": y} for x, y in batches]
    again = accumulate(MADE[name](), by_name, inputs=lambda batch: batch["x"], targets=lambda batch: batch["labels"])
    assert all(torch.equal(tensor, found[key]) for key, tensor in again.sums().items())


@pytest.mark.parametrize(("name", "draws"), [("diagonal", True), ("kfac", True), ("low rank", False)])
def test_which_of_them_draw_labels(name, draws):
    assert (MADE[name]().generator is not None) == draws


@pytest.mark.parametrize("name", ["kfac", "low rank"])
def test_weights_are_not_ignored(name):
    with pytest.raises(ValueError, match="cannot weight samples; DiagonalAccumulator can"):
        accumulate(MADE[name](), [(INPUTS, LABELS, torch.ones(6))])

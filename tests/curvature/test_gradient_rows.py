"""Rows collected batch by batch are the gradients they should be, and make the LowRankFisher of all of them."""

import pytest
import torch
from torch import nn

from fisherexp.curvature import LowRankAccumulator, LowRankFisher
from fisherexp.curvature.vectors import ravel

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
INPUTS, LABELS = torch.randn(11, 4, dtype=torch.float64), torch.randint(2, (11,))


def gradient(rows: slice) -> torch.Tensor:
    loss = nn.functional.cross_entropy(MODEL(INPUTS[rows]), LABELS[rows])
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(MODEL.parameters()))])


def accumulator(batch: int = 2, rows: int = 4) -> LowRankAccumulator:
    return LowRankAccumulator(MODEL, rows=rows, batch=batch)


@pytest.mark.parametrize(("batch", "kind"), [(1, "per_sample"), (2, "batch_mean")])
def test_rows_are_gradients_of_batches_and_stop_when_full(batch, kind):
    collected = accumulator(batch)
    collected.update(INPUTS[:5], LABELS[:5])  # a rest of fewer than `batch` is left out
    collected.update(INPUTS[5:], LABELS[5:])
    starts = (0, 1, 2, 3) if batch == 1 else (0, 2, 5, 7)
    fisher = collected.result()
    expected = torch.stack([gradient(slice(start, start + batch)) for start in starts])
    torch.testing.assert_close(fisher.gradients, expected, rtol=1e-10, atol=1e-14)
    assert (fisher.estimator.gradients, fisher.estimator.batch_size) == (kind, None if batch == 1 else batch)
    assert fisher.divisor == 4


def test_it_goes_on_from_a_stored_state():
    whole, first, second = accumulator(), accumulator(), accumulator()
    with pytest.raises(ValueError, match="no samples"):
        whole.result()
    for part in (slice(0, 4), slice(4, 8)):
        whole.update(INPUTS[part], LABELS[part])
    first.update(INPUTS[:4], LABELS[:4])
    second.load_sums(first.sums())
    second.update(INPUTS[4:8], LABELS[4:8])
    assert torch.equal(second.result().gradients, whole.result().gradients)
    assert first.count == 2
    for wrong in ({"gradients": torch.zeros(5, 23)}, {"gradients": torch.zeros(2, 7)}, {}):
        with pytest.raises(ValueError, match="does not fit"):
            first.load_sums(wrong)


def test_its_result_is_split_and_put_together_again():
    collected = accumulator()
    collected.update(INPUTS, LABELS)
    fisher = collected.result()
    again = LowRankFisher.of(fisher.tensors(), fisher.about())
    x = torch.randn(fisher.dim, dtype=torch.float64)
    assert torch.equal(again.solve(x, 0.1), fisher.solve(x, 0.1))
    assert again.estimator == fisher.estimator
    named = again.solve(fisher.named(x), 0.1)
    assert list(named) == [name for name, _ in MODEL.named_parameters()]
    assert torch.equal(ravel(named), again.solve(x, 0.1))

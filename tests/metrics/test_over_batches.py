"""A pass batch by batch is a pass over everything at once."""

import torch

from fisherexp.data.batch import Batch
from fisherexp.metrics.over_batches import evaluated, gathered
from fisherexp.metrics.regression import RegressionMetrics

torch.manual_seed(0)
INPUTS, TARGETS = torch.randn(10, 1), torch.randn(10, 1)


def batches(part: slice) -> list[Batch]:
    return [Batch(x, y) for x, y in zip(INPUTS[part].split(3), TARGETS[part].split(3), strict=True)]


def test_parts_are_numbered_in_their_order():
    found = evaluated(torch.sin, map(batches, (slice(0, 7), slice(7, 10))), RegressionMetrics(("first", "second")))
    for name, part in (("first", slice(0, 7)), ("second", slice(7, 10))):
        rmse = (INPUTS[part].sin() - TARGETS[part]).square().mean().sqrt().item()
        assert abs(found[f"{name}_rmse"] - rmse) < 1e-6


def test_what_is_gathered_is_in_order():
    outputs, targets = gathered(torch.sin, batches(slice(0, 10)))
    torch.testing.assert_close(outputs, INPUTS.sin())
    assert torch.equal(targets, TARGETS)

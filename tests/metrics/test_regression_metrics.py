"""Errors of predicted numbers against scikit-learn, however they are cut into batches and processes."""

import math

import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from fisherexp.metrics.regression import RegressionMetrics

torch.manual_seed(0)


def made(count: int, outputs: int, mean: float, dtype=torch.float64):
    """(predictions, numbers): as far apart as the numbers themselves vary, around `mean`."""
    numbers = mean * (1 + torch.arange(outputs)) + torch.randn(count, outputs, dtype=torch.float64)
    return (numbers + 0.5 * torch.randn_like(numbers)).to(dtype), numbers.to(dtype)


def reference(predicted: torch.Tensor, numbers: torch.Tensor) -> dict[str, float]:
    y, found = numbers.double().numpy(), predicted.double().numpy()
    return {
        "test_rmse": math.sqrt(mean_squared_error(y, found)),
        "test_mae": mean_absolute_error(y, found),
        "test_r2": r2_score(y, found, multioutput="variance_weighted"),
    }


def fed(predicted: torch.Tensor, numbers: torch.Tensor, sizes: list[int]) -> RegressionMetrics:
    metric = RegressionMetrics(("test",), predicted.shape[1])
    for x, y in zip(predicted.split(sizes), numbers.split(sizes), strict=True):
        metric.update(0, x, y)
    return metric


def gathered(shards: list[RegressionMetrics]) -> RegressionMetrics:
    """The metric of the first rank, to which torchmetrics gives the states of all when it computes."""
    first, states = shards[0], ("squared", "absolute", "count", "mean", "scatter")

    def gather(tensor: torch.Tensor, group=None) -> list[torch.Tensor]:
        (state,) = (name for name in states if getattr(first, name) is tensor)
        return [getattr(shard, state) for shard in shards]

    first.dist_sync_fn, first.distributed_available_fn = gather, lambda: True
    return first


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("sizes", [[40], [13, 13, 13, 1]])
def test_is_that_of_scikit_learn(outputs, sizes):
    pair = made(40, outputs, mean=2.0)
    assert fed(*pair, sizes).compute() == pytest.approx(reference(*pair), rel=1e-12)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("cut", [20, 39, 40])  # the second shard may be a single sample, or empty
def test_two_shards_are_one(outputs, cut):
    predicted, numbers = made(40, outputs, mean=2.0)
    numbers[cut:] += 5  # shards have means of their own
    shards = [fed(predicted[:cut], numbers[:cut], [cut]), RegressionMetrics(("test",), outputs)]
    if cut < 40:
        shards[1].update(0, predicted[cut:], numbers[cut:])
    assert gathered(shards).compute() == pytest.approx(reference(predicted, numbers), rel=1e-12)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_large_mean_in_single_precision_loses_nothing(shards):
    """Numbers around 100,000 that vary by one: Σ y² - n ȳ² in single precision, the control, has no digit left."""
    predicted, numbers = made(4000, 1, mean=1e5, dtype=torch.float32)
    pieces = list(zip(predicted.chunk(shards), numbers.chunk(shards), strict=True))
    found = gathered([fed(x, y, [500] * (len(x) // 500)) for x, y in pieces]).compute()
    expected = reference(predicted, numbers)
    assert found == pytest.approx(expected, rel=1e-9)
    spread = (numbers.square().sum() - len(numbers) * numbers.mean().square()).item()
    naive = 1 - (predicted - numbers).square().sum().item() / spread if spread else math.inf
    assert naive != pytest.approx(expected["test_r2"], rel=0.1)


def test_parts_are_apart_and_a_reset_forgets():
    one, two = made(10, 1, mean=0.0), made(10, 1, mean=7.0)
    metric = RegressionMetrics(("validation", "test"))
    metric.update(0, *one)
    metric.update(1, *two)
    found = metric.compute()
    assert {key: found[key] for key in reference(*two)} == pytest.approx(reference(*two))
    assert found["validation_rmse"] == pytest.approx(reference(*one)["test_rmse"])
    assert set(metric.headings) == set(metric.better) == set(found)
    metric.reset()
    metric.update(0, *two)
    metric.update(1, *one)
    assert metric.compute()["test_mae"] == pytest.approx(reference(*one)["test_mae"])


@pytest.mark.parametrize("shapes", [((4, 1), (4,)), ((4,), (4,)), ((4, 2), (4, 2)), ((4, 1), (1, 1))])
def test_other_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match=r"must be \(B, 1\), not"):
        RegressionMetrics(("test",)).update(0, *map(torch.zeros, shapes))

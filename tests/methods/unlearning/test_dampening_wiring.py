"""What SSD, LFSSD and ASSD make of their options: every weight after the edit, against plain autograd.

The rule itself has tests of its own (test_ssd.py); here the batches are cut by hand, in each order, and importances,
threshold and strength are what the class hands to the rule.
"""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fisherexp.config.explain import composed
from fisherexp.methods.importance import Importance
from fisherexp.methods.unlearning.assd import ASSD
from fisherexp.methods.unlearning.lfssd import LFSSD
from fisherexp.methods.unlearning.ssd import SSD
from fisherexp.runs.workbench import Workbench

TINY = ["model.width=4", "training.epochs=2", "data.train_size=90", "data.batch_size=30", "threads=1", "progress=off"]
FORGOTTEN = 3
ORDERS = ["as_is", "by_class", "forget_apart"]
SIZE = 7  # no divisor of either part: batches at the end are short ones, and one of them is mixed


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Workbench:
    return Workbench(composed([*TINY, "trainer=cpu", f"output_dir={tmp_path_factory.mktemp('dampening')}"]))


@pytest.fixture(scope="module")
def model(bench):
    """The source model; a test takes a copy."""
    found = bench.method("source.method").model
    found.load_state_dict(bench.reference("source").tensors)
    return found.eval()


@pytest.fixture(scope="module")
def samples(bench):
    return bench.setting.parts["train"]


def batches(labels, order, size):
    """(those of all samples, of the forgotten, of the retained), by index."""
    every = torch.arange(len(labels))
    forget, retain = every[labels == FORGOTTEN], every[labels != FORGOTTEN]
    if order != "as_is":
        retain = retain[labels[retain].argsort(stable=True)]
        every = torch.cat([retain, forget])
    whole = [*retain.split(size), *forget.split(size)] if order == "forget_apart" else [*every.split(size)]
    return whole, [*forget.split(size)], [*retain.split(size)]


def squared(model, samples, groups):
    """Mean over groups of the squared gradient of a group's mean loss."""
    return mean_over(
        model, groups, lambda rows: F.cross_entropy(model(samples.inputs[rows]), samples.targets[rows]), torch.square
    )


def absolute(model, samples, groups):
    """Mean over groups of the absolute gradient of a group's mean squared length of the logits."""
    return mean_over(model, groups, lambda rows: model(samples.inputs[rows]).square().sum(1).mean(), torch.abs)


def mean_over(model, groups, loss, of):
    total = [0.0 for _ in model.parameters()]
    for rows in groups:
        gradients = torch.autograd.grad(loss(rows), list(model.parameters()))
        total = [t + of(g) for t, g in zip(total, gradients, strict=True)]
    return [t / len(groups) for t in total]


def edited(model, forget, reference, alpha, lambda_):
    found = []
    for weight, f, r in zip(model.parameters(), forget, reference, strict=True):
        weaker = weight * torch.minimum(lambda_ * r / f, torch.ones_like(f))
        found.append(torch.where(f > alpha * r, weaker, weight).detach())
    return found


def assert_edited(method, source, expected):
    """Every weight is the expected one (within rounding), and some differ from where they were."""
    assert method.outcome["selected"] > 3
    moved = 0
    for (name, mine), theirs, before in zip(
        method.model.named_parameters(), expected, source.parameters(), strict=True
    ):
        off = (mine - theirs).abs() > 1e-4 * before.abs() + 1e-7
        # A ratio within rounding of the threshold may fall on either side.
        assert off.sum() <= 1, f"{name}: {int(off.sum())} of {mine.numel()} weights are not as expected"
        moved += int((theirs != before).sum())
    assert moved > 3


OPTIONS = [
    {},
    {"lambda_": 0.4},
    {"lambda_": 1.7},
    {"alpha_relative": 0.3},
    {"alpha": 1.5, "alpha_relative": 0.9},
    {"alpha": 1.5, "lambda_": 0.4},
]


@pytest.mark.parametrize(
    ("order", "options"),
    [
        *(("forget_apart", options) for options in OPTIONS),
        *((order, options) for order in ("as_is", "by_class", "per_sample") for options in OPTIONS[1::4]),
    ],
    ids=str,
)
def test_ssd(bench, model, samples, tmp_path, options, order):
    size = 1 if order == "per_sample" else SIZE
    importance = Importance() if size == 1 else Importance(gradients="batch_mean", batch_size=SIZE, order=order)
    given = {"alpha": None, "alpha_relative": 0.6, "lambda_": 1.0} | options
    method = SSD(copy.deepcopy(model).train(), **given, importance=importance)
    method.given["fisher"], _ = bench.fisher(importance, bench.reference("source"))
    bench.fit(method, tmp_path, "SSD")
    whole, forget, _ = batches(samples.targets, order, size)
    alpha = given["alpha_relative"] * len(whole) / len(forget) if given["alpha"] is None else given["alpha"]
    assert method.outcome["alpha"] == pytest.approx(alpha)
    of_forgotten, of_all = squared(model, samples, forget), squared(model, samples, whole)
    assert_edited(method, model, edited(model, of_forgotten, of_all, alpha, given["lambda_"]))


@pytest.mark.parametrize("options", [*OPTIONS[1::2], {"batch_size": 11}], ids=str)
def test_lfssd(bench, model, samples, tmp_path, options):
    given = {"alpha": None, "alpha_relative": 0.3, "lambda_": 1.0, "batch_size": SIZE} | options
    method = LFSSD(copy.deepcopy(model).train(), **given)
    bench.fit(method, tmp_path, "LFSSD")
    whole, forget, _ = batches(samples.targets, "by_class", given["batch_size"])
    bound = len(samples) / int((samples.targets == FORGOTTEN).sum())  # of samples, not of batches
    alpha = given["alpha_relative"] * bound if given["alpha"] is None else given["alpha"]
    assert method.outcome["alpha"] == pytest.approx(alpha)
    of_forgotten, of_all = absolute(model, samples, forget), absolute(model, samples, whole)
    assert_edited(method, model, edited(model, of_forgotten, of_all, alpha, given["lambda_"]))


@pytest.mark.parametrize("order", [*ORDERS, "per_sample"])
def test_assd(bench, model, samples, tmp_path, order):
    size = 1 if order == "per_sample" else SIZE
    importance = Importance() if size == 1 else Importance(gradients="batch_mean", batch_size=SIZE, order=order)
    method = ASSD(copy.deepcopy(model).train(), importance)
    bench.fit(method, tmp_path, "ASSD")
    _, forget, retain = batches(samples.targets, order, size)
    of_forgotten, of_retained = squared(model, samples, forget), squared(model, samples, retain)
    ratios = torch.cat([(f / r).flatten() for f, r in zip(of_forgotten, of_retained, strict=True)]).double().numpy()
    percentile = 100 - math.log(1 + 100 * int((samples.targets == FORGOTTEN).sum()) / len(samples))
    alpha = np.percentile(ratios[np.isfinite(ratios)], percentile)
    assert method.outcome["alpha"] == pytest.approx(alpha, rel=1e-3)
    assert_edited(method, model, edited(model, of_forgotten, of_retained, method.outcome["alpha"], 1.0))


def test_orders_are_not_the_same(model, samples):
    """The control: on these samples every order gives other importances."""
    found = [squared(model, samples, batches(samples.targets, order, SIZE)[0]) for order in ORDERS]
    for n, one in enumerate(found):
        assert all(not torch.allclose(one[0], other[0], rtol=1e-2) for other in found[:n])

"""What each class that merges makes of its options: all weights of every candidate.

The rules have tests of their own; here it is looked at which models, in which order, and which options a class hands
to them.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.data.batch import Batch
from fisherexp.methods.merging.average import Average
from fisherexp.methods.merging.coefficients import coefficients
from fisherexp.methods.merging.dare import DARE, dropped
from fisherexp.methods.merging.fisher_merging import FisherMerging
from fisherexp.methods.merging.grams import GramPass
from fisherexp.methods.merging.merging import mean_of, moved, task_vectors
from fisherexp.methods.merging.r_tsvm import RTSVM, reweighted_merge
from fisherexp.methods.merging.regmean import RegMean, regression_mean
from fisherexp.methods.merging.robust_weight_signatures import RobustWeightSignatures, patched
from fisherexp.methods.merging.task_arithmetic import TaskArithmetic
from fisherexp.methods.merging.ties import TIES, agreed, trimmed
from fisherexp.methods.merging.tsvm import TSVM, singular_merge
from fisherexp.methods.merging.wise_ft import WiSEFT
from fisherexp.seeds import generator

NAMES = ["first", "second", "third"]


class Net(nn.Module):
    """Of the tensors that `base` and `models` name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(5, 6), nn.Conv2d(2, 4, 3, bias=False)


class Fisher(dict):
    """As much of a diagonal Fisher as merging asks for."""

    def trace(self):
        return sum(values.sum() for values in self.values())


@pytest.fixture
def make(models):
    def build(cls, **options):
        method = cls(experts=None, model=Net(), **options)
        method.given["experts"] = dict(zip(NAMES, models, strict=True))
        drawn = torch.Generator().manual_seed(9)
        fishers = [{n: torch.rand(t.shape, generator=drawn).double() ** 4 for n, t in models[0].items()} for _ in NAMES]
        method.given["expert_fishers"] = dict(zip(NAMES, map(Fisher, fishers), strict=True))
        inputs = [torch.randn(9, 5, generator=drawn, dtype=torch.float64) for _ in NAMES]
        method.given["expert_grams"] = {n: {"a": x.T @ x} for n, x in zip(NAMES, inputs, strict=True)}
        return method

    return build


@pytest.fixture
def assert_merged(make, base, models, assert_same):
    """Every candidate of a class is what `expected` says for the choice behind it; options that differ, differ."""

    def check(cls, cases, expected):
        found = []
        for options in cases:
            method = make(cls, **options)
            candidates = [method.merged(base, models, **choice) for choice in method.grid()]
            for choice, candidate in zip(method.grid(), candidates, strict=True):
                assert_same(candidate, expected(method, options, choice))
            found.append(candidates[-1])
        for n, one in enumerate(found):
            assert all(any(not torch.equal(one[t], other[t]) for t in one) for other in found[:n]), cases[n]

    return check


def test_average(assert_merged, models):
    assert len(coefficients(3, 2)) == 3
    assert_merged(Average, [{"draws": 0}, {"draws": 2}], lambda _, options, choice: mean_of(models, choice["weights"]))


def test_draws_are_candidates(make):
    for cls, options in ((Average, {}), (FisherMerging, {"importance": None})):
        for draws in (0, 3):
            grid = make(cls, draws=draws, **options).grid()
            assert [choice["weights"] for choice in grid] == coefficients(3, draws)


@pytest.mark.parametrize(("cls", "more"), [(Average, {}), (FisherMerging, {"importance": None})])
def test_for_the_first_task_its_expert_alone_is_a_choice(make, models, base, assert_same, cls, more):
    method = make(cls, draws=2, choose_on="first", **more)
    everyone, alone = make(cls, draws=2, **more).grid(), method.grid()[-1]
    assert method.grid() == [*everyone, {"weights": [1.0, 0.0, 0.0]}]
    assert_same(method.merged(base, models, **alone), models[0], tolerance=1e-12)


def test_task_arithmetic(assert_merged, base, models):
    def expected(_, options, choice):
        return {n: start + choice["scale"] * sum(m[n] - start for m in models) for n, start in base.items()}

    assert_merged(TaskArithmetic, [{"scales": [0.3]}, {"scales": [0.3, 0.7]}], expected)


def test_wise_ft(assert_merged, base, models):
    def expected(_, options, choice):
        model, alpha = models[options["expert"]], choice["alpha"]
        return {n: (1 - alpha) * start + alpha * model[n] for n, start in base.items()}

    assert_merged(WiSEFT, [{"alphas": [0.3, 0.8], "expert": 0}, {"alphas": [0.3, 0.8], "expert": 2}], expected)


def test_ties(assert_merged, base, models):
    def expected(_, options, choice):
        return moved(base, agreed([trimmed(d, options["keep"]) for d in task_vectors(base, models)]), choice["scale"])

    assert_merged(TIES, [{"keep": k, "scales": [0.4, 1.0]} for k in (0.2, 0.7)], expected)


@pytest.mark.parametrize("seed", [0, 5])
def test_dare_drops_other_changes_of_every_expert(make, base, models, assert_same, seed):
    method = make(DARE, rates=[0.4, 0.9], scales=[0.5, 1.0])
    data = SimpleNamespace(eval_batch_size=4, batch_size=4)
    parts = dict.fromkeys(("every_task", "validation"), range(8))
    method.batches(SimpleNamespace(seed=seed, data=data, parts=parts, loader=lambda *_, **__: []))
    assert len(method.grid()) == 4
    for choice in method.grid():
        deltas = enumerate(task_vectors(base, models))
        kept = [dropped(delta, choice["rate"], generator("dare", seed, k)) for k, delta in deltas]
        expected = {n: start + choice["scale"] * sum(d[n] for d in kept) for n, start in base.items()}
        assert_same(method.merged(base, models, **choice), expected)


@pytest.mark.parametrize("floor_on", ["normalized", "raw"])
def test_fisher_merging(assert_merged, make, models, floor_on):
    """Floor, norm and favour, written out for each entry."""
    plain = {"importance": None, "floor": 1e-3, "floor_on": floor_on}
    changes = [{}, {"normalize": False}, {"favor_first": False}, {"floor": 1e-2}, {"draws": 2}]

    def expected(method, options, choice):
        options = {"normalize": True, "favor_first": True} | options
        up, down = {}, {}
        for k, fisher in enumerate(method.given["expert_fishers"].values()):
            norm = sum(values.square().sum() for values in fisher.values()).sqrt() if options["normalize"] else 1.0
            floor = options["floor"] if k == 0 or not options["favor_first"] else 0.0
            for n, values in fisher.items():
                normalized = (values / norm).clamp(min=floor)
                precision = normalized if floor_on == "normalized" else values.clamp(min=floor) / norm
                precision = choice["weights"][k] * precision
                up[n], down[n] = up.get(n, 0) + precision * models[k][n], down.get(n, 0) + precision
        return {n: up[n] / down[n] for n in up}

    assert_merged(FisherMerging, [plain | change for change in changes], expected)


def test_tsvm(assert_merged, base, models):
    def expected(_, options, choice):
        return moved(base, singular_merge(task_vectors(base, models), options["kernels"]), choice["scale"])

    assert_merged(TSVM, [{"scales": [0.5, 1.0], "kernels": k} for k in ("average", "matrix")], expected)


def test_r_tsvm(make, base, models, assert_same):
    """Of two experts, so that ranks have room; one tensor has changed in few entries."""
    one, other = ({n: base[n] + (m[n] - base[n]) * (1 if n == "c.weight" else 0.1) for n in base} for m in models[:2])
    one["a.weight"][0, 0] = other["a.weight"][1, 1] = 9.0
    plain = {"scales": [1.0], "kernels": "matrix", "sparse": 0.05, "reweight": True, "adapt": True}
    found = []
    for change in ({}, {"kernels": "average"}, {"sparse": 1e-6}, {"reweight": False}, {"adapt": False}):
        options = plain | change
        found.append(make(RTSVM, **options).merged(base, [one, other], scale=0.7))
        given = (options[name] for name in ("sparse", "kernels", "reweight", "adapt"))
        assert_same(found[-1], moved(base, reweighted_merge(task_vectors(base, [one, other]), *given), 0.7))
    assert all(not torch.equal(found[0]["a.weight"], state["a.weight"]) for state in found[2:])
    assert not torch.equal(found[0]["c.weight"], found[1]["c.weight"])
    assert not torch.equal(found[3]["a.weight"], found[4]["a.weight"])


def test_regmean(assert_merged, models):
    def expected(method, options, choice):
        return regression_mean(models, list(method.given["expert_grams"].values()), choice["scale"], options["ridge"])

    assert_merged(RegMean, [{"scales": [0.2, 0.9], "ridge": r} for r in (1e-6, 1e-1)], expected)


def test_robust_weight_signatures(assert_merged, base, models):
    """The first task is the clean one, the others are robust."""

    def expected(_, options, choice):
        layers = ["a.weight", "a.bias", "c.weight"][: 2 if options["layers"] == 1 else 3]
        return patched(base, models[0], models[1:], layers, [], choice["alpha"])

    assert_merged(RobustWeightSignatures, [{"layers": n, "alphas": [0.5, 1.0]} for n in (1, 2)], expected)


def test_gram_matrices_are_of_eval_mode():
    """Sums over batches of XᵀX, of a network that is handed over in train mode."""
    net = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3)).double()
    method, inputs, expected = GramPass(net), torch.randn(9, 5).double(), {"1": 0.0, "3": 0.0}
    for x in inputs.split(4):
        net.train()
        method.training_step(Batch(x, torch.zeros(len(x))), 0)
        hidden = x / (1 + 1e-5) ** 0.5  # of a new BatchNorm
        for name, seen in (("1", hidden), ("3", F.linear(hidden, net[1].weight, net[1].bias).detach())):
            expected[name] = expected[name] + seen.T @ seen
    torch.testing.assert_close(method.sums, expected)


def test_statistics_are_the_mean_of_the_experts(make, base, models, assert_same):
    expected = {n: sum(m[n] for m in models) / 3 for n in base}
    method = make(TIES, keep=0.2, scales=[1.0])
    assert_same(method.merged_buffers(base, models, **method.grid()[0]), expected)


@pytest.mark.parametrize(("cls", "more"), [(Average, {}), (FisherMerging, {"importance": None})])
def test_statistics_have_the_weights_of_the_experts(make, base, models, assert_same, cls, more):
    """So that the first expert alone, one of the choices, has its own."""
    method = make(cls, draws=2, choose_on="first", **more)
    for choice in method.grid():
        expected = {n: sum(c * m[n] for c, m in zip(choice["weights"], models, strict=True)) for n in base}
        assert_same(method.merged_buffers(base, models, **choice), expected, tolerance=1e-6)
    assert_same(method.merged_buffers(base, models, **method.grid()[-1]), models[0])

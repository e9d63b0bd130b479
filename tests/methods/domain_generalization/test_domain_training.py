"""The loop around the penalties: special cases that equal plain training, and the options in which codes differ."""

import copy

import pytest
import torch
from torch.nn import functional as F

from fisherexp.config.explain import composed
from fisherexp.data.batch import Batch, joined
from fisherexp.data.tensors import TensorSet
from fisherexp.methods.domain_generalization.domain import Domain, seen
from fisherexp.methods.domain_generalization.fish import step_towards
from fisherexp.methods.domain_generalization.fishr import fishr_penalty, head_variances
from fisherexp.methods.domain_generalization.group_dro import updated
from fisherexp.methods.domain_generalization.iga import iga_penalty
from fisherexp.methods.domain_generalization.mmd import mmd_penalty
from fisherexp.methods.domain_generalization.penalty import Penalty
from fisherexp.models.classifier import Classifier
from fisherexp.models.heads import etf_head
from fisherexp.runs.workbench import Workbench

SMALL = [
    "data=colored_digits",
    "scenario=domains",
    "model=mlp",
    "model.hidden=[16]",
    "scenario.holdout=0",
    "progress=off",
    "training=cmnist",
    "training.epochs=4",
    "trainer=cpu",
    "threads=1",
]


def fitted(tmp_path, *overrides):
    """A method after its fit, from the same initial weights whatever the method."""
    bench = Workbench(composed([*SMALL, *overrides, *_as_published(overrides), f"output_dir={tmp_path}"]))
    method = bench.method("method")
    torch.manual_seed(0)
    for parameter in method.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    bench.fit(method, tmp_path / "fit", "fit")
    return method


def _as_published(overrides):
    """The penalty of DomainBed for every method that has one; those at home with colored digits bring another."""
    return [] if "method=erm" in overrides else ["penalty@method.penalty=domainbed"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("plain"), "method=domain_erm").model.state_dict()


def assert_same(found, expected, **tolerance):
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **(tolerance or {"rtol": 1e-5, "atol": 1e-6}))


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=hgp", "method.alpha=0", "method.beta=0"],
        ["method=hutchinson", "method.alpha=0", "method.beta=0"],
        ["method=hessian_exact", "method.alpha=0", "method.beta=0"],
        ["method=cma", "method.alpha=0", "method.beta=0", "method.penalty.anneal=0"],
        *(
            [f"method={name}", "method.penalty.weight=0"]
            for name in ("coral", "mmd", "iga", "spectral_decoupling", "gradient_alignment")
        ),
        *(
            [f"method={name}", "method.penalty.weight=0", "method.penalty.anneal=0"]
            for name in ("irm", "vrex", "fishr")
        ),
        ["method=group_dro", "method.eta=0"],
        # Two domains of 700: the mean of means is the mean.
        ["method=erm", "data.batch_size=1400"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_without_strength_it_is_plain_training(tmp_path, plain, overrides):
    assert_same(fitted(tmp_path, *overrides).model.state_dict(), plain)


def test_gradients_alone_are_hgp_without_its_hessian_term(tmp_path):
    options = ["method.penalty.weight=3", "method.penalty.anneal=0"]
    hgp = fitted(tmp_path / "a", "method=hgp", "method.alpha=0", "method.beta=1", *options)
    alone = fitted(tmp_path / "b", "method=gradient_alignment", *options)
    assert_same(hgp.model.state_dict(), alone.model.state_dict())
    assert hgp.mean_penalty.count == 0  # taken at the end of the epoch, so it was there


def test_one_training_domain_alone(tmp_path):
    """Nothing to align: plain training on it."""
    one = ["scenario.target=e90", "scenario.leave_out=e10"]
    expected = fitted(tmp_path / "erm", "method=domain_erm", *one).model.state_dict()
    for name in ("hgp", "hessian_exact", "fishr", "coral", "domain_mixup"):
        assert_same(fitted(tmp_path / name, f"method={name}", *one).model.state_dict(), expected)


def test_domains_count_alike_whatever_their_size(tmp_path):
    method = fitted(tmp_path, "method=domain_erm")
    images, labels = torch.rand(9, 2, 8, 8), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1])
    each = F.cross_entropy(method.model(images), labels, reduction="none")
    domain = (torch.arange(9) >= 2).long()
    found = method.penalized_risk(Batch(images, labels, tags={"domain": domain}))
    torch.testing.assert_close(found, (each[:2].mean() + each[2:].mean()) / 2)
    assert abs(found - each.mean()) > 1e-4


def test_weight_over_time_and_rescaling():
    penalty = Penalty(weight=50.0, before=2.0, anneal=3, rescale=True, l2=0.1)
    assert [penalty.weight_at(step) for step in (0, 2, 3, 9)] == [2.0, 2.0, 50.0, 50.0]
    model = torch.nn.Linear(2, 2)
    norm = 0.1 * sum(p.square().sum() for p in model.parameters())
    risk, misaligned = torch.tensor(0.7), torch.tensor(0.02)
    torch.testing.assert_close(penalty.joined(risk, misaligned, model, 5), (risk + norm + 50 * misaligned) / 50)
    torch.testing.assert_close(penalty.joined(risk, None, model, 5), risk + norm)


def test_the_optimizer_begins_anew_at_the_switch(tmp_path):
    """With a reset at step 2, steps 3 and 4 are those of a fresh Adam from the weights of step 2."""
    options = ["method=vrex", "method.penalty.weight=5", "method.penalty.before=0"]
    whole = fitted(tmp_path / "whole", *options, "method.penalty.anneal=2").model.state_dict()
    half = fitted(tmp_path / "half", *options, "method.penalty.anneal=9", "training.epochs=2")
    bench = Workbench(
        composed(
            [
                *SMALL,
                *options,
                *_as_published(options),
                "method.penalty.anneal=0",
                "training.epochs=2",
                f"output_dir={tmp_path}",
            ]
        )
    )
    rest = bench.method("method")
    rest.model.load_state_dict(half.model.state_dict())
    bench.fit(rest, tmp_path / "rest", "fit")
    assert_same(rest.model.state_dict(), whole)
    kept = fitted(tmp_path / "kept", *options, "method.penalty.anneal=2", "method.penalty.reset_optimizer=false")
    assert any(not torch.allclose(kept.model.state_dict()[n], w, rtol=1e-3, atol=1e-5) for n, w in whole.items())


def test_fishr_smooths_its_variances_with_the_newest_at_full_weight(tmp_path):
    method = fitted(tmp_path, "method=fishr", "method.ema=0.5")
    domains = [Domain(torch.randn(6, 3), torch.randn(6, 2), torch.randint(2, (6,))) for _ in range(2)]
    now = head_variances(domains)
    method.smoothed = None
    torch.testing.assert_close(method.misalignment(domains), fishr_penalty(now, "mean"))
    torch.testing.assert_close(method.smoothed, 0.5 * now)
    torch.testing.assert_close(method.misalignment(domains), fishr_penalty(now + 0.5 * now, "mean"))
    torch.testing.assert_close(method.smoothed, 0.5 * (0.5 * now) + 0.5 * now)


def test_group_dro_follows_the_losses():
    weights, each = (
        torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64),
        torch.tensor([1.0, 0.1, 3.0], dtype=torch.float64),
    )
    raised = weights * torch.exp(0.7 * each)
    torch.testing.assert_close(updated(weights, each, 0.7), raised / raised.sum())


def test_iga_compares_gradients_of_all_parameters():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    parameters = list(model.parameters())
    data = [(torch.randn(5, 3, dtype=torch.float64), torch.randint(2, (5,))) for _ in range(3)]
    each = torch.stack([F.cross_entropy(model(x), y) for x, y in data])
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)]) for loss in each]
    mean = sum(rows) / 3
    torch.testing.assert_close(iga_penalty(each, parameters), sum(((row - mean) ** 2).sum() for row in rows))


def test_fish_with_one_domain_and_full_meta_rate_is_plain_training(tmp_path):
    one = ["scenario.leave_out=e10"]
    expected = fitted(tmp_path / "erm", "method=domain_erm", *one).model.state_dict()
    assert_same(fitted(tmp_path / "fish", "method=fish", "method.meta_lr=1", *one).model.state_dict(), expected)


def test_fish_goes_a_share_of_the_way():
    start = [torch.tensor([1.0, 2.0])]
    there = [torch.tensor([3.0, 0.0])]
    step_towards(there, start, 0.25)
    torch.testing.assert_close(there[0], torch.tensor([1.5, 1.5]))


def test_mixup_of_equal_domains_keeps_labels_and_images(tmp_path, monkeypatch):
    """Mixing a domain with its copy gives the domain, whatever the share: the loss is plain."""
    method = fitted(tmp_path, "method=domain_mixup")
    one = TensorSet(torch.rand(5, 2, 8, 8), torch.tensor([0, 1, 1, 0, 1]))
    found = method.penalized_risk(joined([one.tagged(domain=number).batch for number in (0, 1)]))
    torch.testing.assert_close(found, F.cross_entropy(method.model(one.inputs), one.targets))


@pytest.mark.parametrize("samples", [20, 4])
def test_mmd_of_some_samples_is_that_of_those(tmp_path, samples):
    method = fitted(tmp_path, "method=mmd", f"method.samples={samples}")
    domains = [Domain(torch.randn(9, 3), torch.randn(9, 2), torch.randint(2, (9,))) for _ in range(2)]
    torch.manual_seed(1)
    found = method.misalignment(domains)
    torch.manual_seed(1)
    kept = [part._replace(features=part.features[torch.randperm(9)[:samples]]) for part in domains]
    torch.testing.assert_close(found, mmd_penalty(kept, method.gammas))


def test_binary_head_is_the_softmax_of_zero_and_its_logit(tmp_path):
    model = copy.deepcopy(fitted(tmp_path, "method=domain_erm").model)
    images, labels = torch.rand(7, 2, 8, 8), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    assert model.head.out_features == 1
    single = model.head(model.features(images))
    expected = F.binary_cross_entropy_with_logits(single[:, 0], labels.float())
    torch.testing.assert_close(F.cross_entropy(model(images), labels), expected)


@pytest.mark.parametrize("data", ["colored_digits", "digits"])  # one logit, and ten
def test_what_a_step_sees_is_counted_and_is_the_models_own(tmp_path, data):
    bench = Workbench(composed([*SMALL, f"data={data}", "method=domain_erm", f"output_dir={tmp_path}"]))
    method = bench.method("method")
    images = bench.data.train.inputs[:5]
    features, logits = seen(method.model, images)
    torch.testing.assert_close(features, method.model.features(images))
    torch.testing.assert_close(logits, method.model.head(features))
    bench.fit(method, tmp_path / "fit", "fit")
    assert bench.costs["fit"]["backward_samples"] == bench.costs["fit"]["forward_samples"] > 0


@pytest.mark.parametrize("name", ["fishr", "gradient_alignment", "hgp", "hutchinson", "hessian_exact", "cma", "irm"])
def test_derivatives_by_a_bias_need_one(name):
    """For a head without, they would be of a bias that no one has."""
    bench = Workbench(composed(["data=rotated_mnist", "model=mlp", f"method={name}"]))
    model = Classifier(torch.nn.Identity(), 4, 3, head=etf_head(num_features=4, num_classes=3))
    make = bench.make("method", _partial_=True)
    if name in ("cma", "irm"):
        assert make(model=model).model is model
        return
    with pytest.raises(ValueError, match=r"this head has no bias: take head=linear, or method=cma"):
        make(model=model)

"""Tent, ETA, EATA, RDumb: the selection by hand, each as a special case of the next, the anchor, the Fisher."""

import copy
import math

import alone
import pytest
import torch
from torch import nn

from fisherexp.methods.test_time_adaptation.anchor import AnchorImportance
from fisherexp.methods.test_time_adaptation.entropy import entropy, entropy_gradient, log_softmax
from fisherexp.methods.test_time_adaptation.eta import ETA, kept
from fisherexp.methods.test_time_adaptation.norms import affine_parameters, use_batch_statistics
from fisherexp.methods.test_time_adaptation.rdumb import RDumb
from fisherexp.methods.test_time_adaptation.update import UpdateRule
from fisherexp.scenarios.setting import Segment

NEVER = Segment()
torch.manual_seed(0)
LOGITS = 3 * torch.randn(40, 10, dtype=torch.float64)
FAST = ["update.optimizer=sgd", "update.lr=0.3"]
ALL = ["e_margin=inf", "d_margin=2.0", "reweight=false"]


def final(method) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in method.model.parameters()])


def test_entropy_and_its_gradient():
    z, weights = LOGITS.clone().requires_grad_(), torch.rand(40, dtype=torch.float64)
    values = torch.distributions.Categorical(logits=z).entropy()
    (expected,) = torch.autograd.grad((weights * values).sum(), z)
    torch.testing.assert_close(entropy(log_softmax(z.detach())), values.detach())
    torch.testing.assert_close(entropy_gradient(log_softmax(z.detach()), weights), expected)


def test_selection_sample_by_sample():
    log_p, mean = log_softmax(LOGITS), torch.rand(10, dtype=torch.float64)
    reliable, chosen = kept(log_p, mean, 0.9, 0.3)
    assert 0 < chosen.sum() < reliable.sum() < 40
    for i, p in enumerate(log_p.exp()):
        near = -(p * p.log()).sum() < 0.9
        cosine = (p @ mean) / (p.norm() * mean.norm())
        assert bool(reliable[i]) == bool(near)
        assert bool(chosen[i]) == bool(near and cosine < 0.3)
    assert all(torch.equal(mask, reliable) for mask in kept(log_p, None, 0.9, 0.6))


def plain_eata(method, batches, e_margin, d_margin, lr, beta, fisher):
    """The algorithm of the paper by autograd, one batch after the other; final parameters of the norms."""
    model = copy.deepcopy(method.model).eval()
    use_batch_statistics(model)
    moving = affine_parameters(model)
    origin = {name: p.detach().clone() for name, p in moving.items()}
    optimizer, mean = torch.optim.SGD(moving.values(), lr, 0.9), None
    for images in batches:
        p = model(images).softmax(1)
        h = -(p * p.log()).sum(1)
        chosen = [i for i in range(len(p)) if h[i] < e_margin]
        if mean is not None:
            chosen = [i for i in chosen if nn.functional.cosine_similarity(mean, p[i], dim=0) < d_margin]
        if not chosen:
            continue
        new = p[chosen].detach().mean(0)
        mean = new if mean is None else 0.9 * mean + 0.1 * new
        loss = sum((e_margin - h[i].detach()).exp() * h[i] for i in chosen) / len(chosen)
        loss = loss + beta * sum((fisher[n] * (moving[n] - origin[n]) ** 2).sum() for n in moving)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return moving


def test_eata_is_the_algorithm_of_the_paper(make, stream, follow):
    setting = stream(NEVER, NEVER)
    method = make("eata", *FAST, "update.lr=0.05", "beta=0.7", "d_margin=0.5")
    batches = [batch.inputs for part in setting.evaluated for batch in setting.loader(part, batch_size=50)]
    margin = 0.4 * math.log(10)
    expected = plain_eata(method, batches, margin, 0.5, 0.05, 0.7, method.given["fisher"])
    follow(method, setting)
    assert method.outcome["distance"] > 0.05
    assert method.outcome["kept"] < method.outcome["reliable"]
    for name, p in affine_parameters(method.model).items():
        torch.testing.assert_close(p, expected[name], rtol=1e-3, atol=1e-4)


def test_tent_is_eta_that_keeps_all_with_equal_weights(make, stream, follow):
    setting = stream(NEVER, NEVER)
    tent, eta = make("tent", *FAST), make("eta", *FAST, *ALL)
    logits, others = follow(tent, setting), follow(eta, setting)
    assert all(map(torch.equal, logits, others))
    assert torch.equal(final(tent), final(eta))
    assert tent.outcome["distance"] > 0.1


def test_eta_is_eata_without_weight_on_the_anchor(make, stream, follow):
    setting = stream(NEVER, NEVER)
    methods = [make("eta", *FAST), make("eata", *FAST, "beta=0.0"), make("eata", *FAST, "beta=1.0")]
    for method in methods:
        follow(method, setting)
    eta, without, anchored = map(final, methods)
    assert torch.equal(eta, without)
    assert not torch.allclose(eta, anchored, atol=1e-3)
    assert methods[2].outcome["distance"] < methods[0].outcome["distance"]


def test_eta_is_rdumb_before_its_interval_and_source_after_it(make, stream, follow):
    setting = stream(NEVER, NEVER)  # eight batches
    eta, rdumb, again = make("eta", *FAST), make("rdumb", *FAST, "interval=9"), make("rdumb", *FAST, "interval=8")
    for method in (eta, rdumb, again):
        follow(method, setting)
    assert torch.equal(final(eta), final(rdumb))
    assert again.outcome["distance"] == 0
    assert again.state == {"mean_prediction": None, "batches": 0}


def test_rdumb_begins_anew_after_its_interval_with_nothing_left():
    """Batches after a reset are answered as by ETA that begins there: nothing it had learned is left."""
    options = {"e_margin": 1.0, "d_margin": 0.9, "reweight": True, "over": "kept", "reset": "everything"}
    rule, batches = UpdateRule("sgd", 0.05, 0.9), list(alone.images(60).split(10))
    rdumb = RDumb(alone.network(), 3, rule, **options)
    whole, fresh = (ETA(alone.network(), rule, **options) for _ in range(2))
    found, without = alone.answers(rdumb, batches), alone.answers(whole, batches)
    assert all(map(torch.equal, found[:3], without[:3]))
    assert all(map(torch.equal, found[3:], alone.answers(fresh, batches[3:])))
    assert (torch.cat(found[3:]) - torch.cat(without[3:])).abs().max() > 1e-3
    assert rdumb.counts[0]["updates"] == 6


@pytest.mark.parametrize("name", ["eta", "eata"])
def test_nothing_reliable_means_no_update_no_backward_and_bn_statistics_logits(make, stream, follow, name, monkeypatch):
    setting = stream(NEVER, NEVER)
    method = make(name, *FAST, "e_margin=0.0")

    def refused(*arguments, **options):
        raise AssertionError("a backward pass")

    monkeypatch.setattr(torch.Tensor, "backward", refused)
    found, expected = follow(method, setting), follow(make("bn_adapt"), setting)
    assert all(map(torch.equal, found, expected))
    assert method.outcome["updates"] == method.outcome["backward_samples"] == method.outcome["distance"] == 0


def test_the_first_batch_that_has_reliable_samples_keeps_them_all(make, stream):
    method, setting = make("eta", *FAST, "d_margin=0.1"), stream(NEVER)
    method.evaluate(setting)
    for index, batch in enumerate(setting.loader("noise_0", batch_size=50)):
        method.test_step(batch, index, 0)
        count = dict(method.counts[0])
        if index == 0:
            assert count["kept"] == count["reliable"] > 0
    assert count["kept"] < count["reliable"]


def test_over_the_batch_a_step_shrinks_with_the_kept_share(make, stream, follow):
    setting = stream(NEVER, images=50)
    by_kept, by_batch = make("eta", *FAST), make("eta", *FAST, "over=batch")
    for method in (by_kept, by_batch):
        follow(method, setting)
    share = by_kept.outcome["kept"] / 50
    assert by_batch.outcome["distance"] == pytest.approx(share * by_kept.outcome["distance"], rel=1e-4)


def test_shares_are_of_the_samples_that_it_could_adapt_on(make, stream, follow):
    """Frozen stretches, of which nothing can be kept, do not count."""
    alone, watched = make("eta", *FAST), make("eta", *FAST)
    follow(alone, stream(NEVER))
    follow(watched, stream(NEVER, Segment(adapt=False)))
    for name in ("reliable", "kept"):
        assert alone.outcome[f"{name}_share"] == watched.outcome[f"{name}_share"] == alone.outcome[name] / 200


def test_what_the_official_reset_leaves(make, stream, follow):
    for option, kept_mean in (("everything", False), ("official", True)):
        method = make("eta", *FAST, f"reset={option}")
        follow(method, stream(NEVER))
        mean = method.state["mean_prediction"]
        method.restart()
        assert method.distance() == 0
        assert (method.state["mean_prediction"] is mean) == kept_mean


def test_gradient_of_the_anchor_and_its_value(make, stream):
    method = make("eata", "beta=3.0")
    method.evaluate(stream(NEVER))
    moving = affine_parameters(method.model)
    for p in moving.values():
        p.grad = torch.zeros_like(p)
    method.pull()
    assert all((p.grad == 0).all() for p in moving.values())
    assert method.penalty() == 0
    origin = {name: p.detach().clone() for name, p in moving.items()}
    with torch.no_grad():
        for p in moving.values():
            p.add_(torch.randn_like(p))
    value = 3.0 * method.given["fisher"].quadratic(moving, origin)
    gradients = torch.autograd.grad(value, list(moving.values()))
    method.pull()
    torch.testing.assert_close([p.grad for p in moving.values()], list(gradients))
    assert method.penalty() == pytest.approx(value.item(), rel=1e-5)


def test_relative_beta_does_not_know_the_scale_of_the_fisher(make, stream):
    one, scaled = make("eata"), make("eata")
    scaled.given["fisher"] = 1e-6 * scaled.given["fisher"]
    for method in (one, scaled):
        method.evaluate(stream(NEVER))
    assert scaled.weight == pytest.approx(1e6 * one.weight)
    torch.testing.assert_close([1e6 * f for f in scaled.curvature], one.curvature)
    count = sum(f.numel() for f in one.curvature)
    assert one.weight * one.given["fisher"].trace().item() == pytest.approx(0.05 * count)


def test_a_fisher_that_vanishes_needs_an_absolute_beta(make, stream):
    method = make("eata")
    method.given["fisher"] = 0.0 * method.given["fisher"]
    with pytest.raises(ValueError, match=r"set method\.beta"):
        method.evaluate(stream(NEVER))


def test_fisher_per_sample_is_that_of_vmap_and_of_batches_of_one(make, stream, bench):
    """F = mean of (∂ -log p(ŷ|x)/∂θ)² with ŷ the model's own label, by torch.func in eval mode."""
    importance = AnchorImportance(samples=30, batch_size=7)
    fisher, _ = bench.fisher(importance, bench.reference("source"))
    model = make("source").model.eval()
    images = torch.cat([batch.inputs for batch in importance.batches(bench.setting, "train")])
    labels = model(images).argmax(1)
    moving = {name: p.detach() for name, p in affine_parameters(model).items()}

    def loss(parameters, image, label):
        logits = torch.func.functional_call(model, parameters, (image[None],))
        return nn.functional.cross_entropy(logits, label[None])

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(moving, images / 255, labels)
    assert set(fisher) == set(moving)
    for name, gradient in gradients.items():
        torch.testing.assert_close(fisher[name], gradient.square().mean(0), rtol=1e-3, atol=1e-7)


def test_fisher_of_batch_means_is_that_of_the_configured_model(make, bench):
    """Squares of mean gradients under batch statistics, the last, smaller batch counting as a full one."""
    importance = AnchorImportance(gradients="batch_mean", samples=30, batch_size=8)
    fisher, _ = bench.fisher(importance, bench.reference("source"))
    model = make("source").model.eval()
    use_batch_statistics(model)
    moving, squares = affine_parameters(model), []
    for images, *_ in importance.batches(bench.setting, "train"):
        logits = model(images)
        loss = nn.functional.cross_entropy(logits, logits.argmax(1))
        squares.append([g.square() for g in torch.autograd.grad(loss, list(moving.values()))])
    assert len(squares) == 4
    for name, terms in zip(moving, zip(*squares, strict=True), strict=True):
        torch.testing.assert_close(fisher[name], sum(terms) / 4, rtol=1e-3, atol=1e-9)


def test_origin_of_the_samples_and_what_names_them(bench, stream):
    setting = stream(Segment(adapt=False), NEVER)
    size = {origin: AnchorImportance(origin=origin, samples=40) for origin in ("clean", "train", "stream")}
    assert len({importance.checksum(setting) for importance in size.values()}) == 3
    first = setting.parts["noise_1"].subset(torch.arange(40))
    assert torch.equal(size["stream"].images(setting).inputs, first.inputs)
    assert size["clean"].checksum(setting) == size["clean"].checksum(stream(NEVER, images=10))
    assert size["train"].key() != AnchorImportance(origin="train", gradients="batch_mean").key()

"""SAR, MEMO, LAME, SHOT-IM, ROID and statistics alone: each against its equation, or a case known otherwise."""

import copy
import math

import alone
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.methods.test_time_adaptation.entropy import entropy, log_softmax
from fisherexp.methods.test_time_adaptation.lame import adjusted, affinity
from fisherexp.methods.test_time_adaptation.memo import MEMO, marginal_entropy
from fisherexp.methods.test_time_adaptation.norms import affine_parameters, use_batch_statistics
from fisherexp.methods.test_time_adaptation.roid import (
    sample_weights,
    smoothed_prior,
    soft_likelihood_ratio,
    symmetric_cross_entropy,
)
from fisherexp.methods.test_time_adaptation.shot_im import information
from fisherexp.methods.test_time_adaptation.update import UpdateRule
from fisherexp.models.classifier import Classifier
from fisherexp.scenarios.setting import Segment

NEVER = Segment()
torch.manual_seed(0)
LOGITS = 2 * torch.randn(12, 5, dtype=torch.float64)
LOG_P = LOGITS.log_softmax(1)
P = LOG_P.exp()


# --- statistics alone ------------------------------------------------------------------------------------


def test_alpha_is_source_at_zero_and_a_mixture_between(make, stream, follow):
    setting = stream(NEVER)
    source = follow(make("source"), setting)
    zero = follow(make("bn_adapt", "mode=alpha", "alpha=0.0"), setting)
    assert all(map(torch.equal, zero, source))
    assert not all(map(torch.equal, follow(make("bn_adapt", "mode=alpha", "alpha=0.1"), setting), source))


def test_ema_is_pytorchs_own_running_average(make, stream, follow):
    setting, method = stream(NEVER), make("bn_adapt", "mode=ema", "alpha=0.2")
    model, expected = copy.deepcopy(method.model), []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.2
    for images, *_ in setting.loader("noise_0", batch_size=50):
        with torch.no_grad():
            model.train()(images)
            expected.append(model.eval()(images))
    assert all(map(torch.equal, follow(method, setting), expected))
    assert method.outcome["forward_samples"] == 2 * method.outcome["samples"]


# --- SAR -------------------------------------------------------------------------------------------------


def test_sar_by_hand(make, stream, follow):
    """Two forward passes, the ascent, the second selection and the descent, by autograd."""
    method, setting = make("sar", "rho=0.5", "update.lr=0.1", "e_reset=0.0"), stream(NEVER)
    model = copy.deepcopy(method.model).eval()
    use_batch_statistics(model)
    moving, margin = list(affine_parameters(model).values()), 0.4 * math.log(10)
    optimizer = torch.optim.SGD(moving, 0.1, 0.9)
    dropped = 0
    for images, *_ in setting.loader("noise_0", batch_size=50):
        first = entropy(log_softmax(model(images)))
        reliable = first < margin
        gradients = torch.autograd.grad(first[reliable].mean(), moving)
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        before = [p.detach().clone() for p in moving]
        for p, g in zip(moving, gradients, strict=True):
            p.data += 0.5 * g / norm
        second = entropy(log_softmax(model(images)))
        still = reliable & (second < margin)
        dropped += int(reliable.sum() - still.sum())
        gradients = torch.autograd.grad(second[still].mean(), moving)
        for p, g, value in zip(moving, gradients, before, strict=True):
            p.data, p.grad = value, g
        optimizer.step()
    follow(method, setting)
    for found, expected in zip(affine_parameters(method.model).values(), moving, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_sar_without_radius_is_entropy_minimization_on_reliable_samples(make, stream, follow):
    setting = stream(NEVER)
    sar = make("sar", "rho=0.0", "update.lr=0.1", "e_reset=0.0")
    eta = make("eta", "update.optimizer=sgd", "update.lr=0.1", "d_margin=2.0", "reweight=false")
    for method in (sar, eta):
        follow(method, setting)
    torch.testing.assert_close(list(sar.model.parameters()), list(eta.model.parameters()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("recovery", "kept"), [("everything", False), ("official", True)])
def test_sar_recovers_when_its_loss_is_too_small(make, stream, follow, recovery, kept):
    method = make("sar", "e_reset=100.0", f"recovery={recovery}")
    follow(method, stream(NEVER))
    assert method.outcome["recoveries"] == method.outcome["updates"] == 4
    assert method.outcome["distance"] == 0
    assert (method.state["average"] is not None) == kept


def test_sar_leaves_skipped_layers_alone(make, stream, follow):
    method = make("sar", "skip=[backbone.layers.1]", "update.lr=0.1")
    before = copy.deepcopy(method.model.state_dict())
    follow(method, stream(NEVER))
    after = method.model.state_dict()
    assert torch.equal(before["backbone.layers.1.weight"], after["backbone.layers.1.weight"])
    assert not torch.equal(before["backbone.layers.5.weight"], after["backbone.layers.5.weight"])


@pytest.mark.parametrize(("skip", "said"), [("layer4", True), ("backbone.layers.1", False), ("", False)])
def test_sar_says_where_no_layer_is_skipped(make, stream, follow, caplog, skip, said):
    follow(make("sar", f"skip=[{skip}]"), stream(NEVER))
    assert ("method.skip names no normalization layer" in caplog.text) == said


# --- MEMO ------------------------------------------------------------------------------------------------


def test_marginal_entropy_is_that_of_the_mean_and_for_one_view_that_of_tent():
    mean = P.mean(0)
    torch.testing.assert_close(marginal_entropy(LOGITS), -(mean * mean.log()).sum())
    one = LOGITS[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(marginal_entropy(one), one)
    (expected,) = torch.autograd.grad(entropy(log_softmax(one)).sum(), one)
    torch.testing.assert_close(gradient, expected)


def test_memo_on_the_image_itself_is_a_step_of_tent_on_all_parameters(make, stream, follow, monkeypatch):
    """One view, which is the image: minimize the entropy of one sample, then predict it; image by image anew."""
    monkeypatch.setattr("fisherexp.methods.test_time_adaptation.memo.augmix", lambda images, *options: images[:, None])
    setting, expected = stream(NEVER, images=5), []
    method = make("memo", "views=1", "update.lr=0.05")
    method.evaluate(setting)
    for image in setting.parts["noise_0"].inputs:
        model = copy.deepcopy(method.model)
        gradients = torch.autograd.grad(entropy(log_softmax(model(image[None]))).sum(), list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients, strict=True):
                p -= 0.05 * g
            expected.append(model(image[None]))
    (found,) = follow(method, setting)
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_memo_frozen_predicts_images_one_by_one_as_well(make, stream, follow):
    """Statistics of the batch, a share of the mixture, are those of the image itself, however many come together."""
    alone, together = (torch.cat(follow(make("memo"), stream(Segment(adapt=False), size=n))) for n in (1, 50))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    still = make("memo", "update.lr=1e-12", "views=1")
    torch.testing.assert_close(torch.cat(follow(still, stream(NEVER, images=20))), alone[:20], rtol=1e-4, atol=1e-4)


def test_memo_makes_the_views_that_its_options_say():
    options = {"views": 4, "prior": 16, "episodic": True, "flip": False}
    found = []
    for crop, resampling in (("padded", "rounded"), ("padded", "pillow"), ("resized", "rounded")):
        torch.manual_seed(0)
        update = UpdateRule("sgd", 0.5, 0.0)
        method = MEMO(alone.network().float(), update, **options, crop=crop, resampling=resampling)
        method.model.register_buffer("std", torch.ones(1, 1, 1))  # views in the precision of the model
        found.append(torch.cat(alone.answers(method, [alone.images(2)])))
    assert all((found[i] - found[j]).abs().max() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))


# --- LAME ------------------------------------------------------------------------------------------------


def test_without_affinity_lame_returns_the_predictions():
    torch.testing.assert_close(adjusted(LOG_P, torch.zeros(12, 12, dtype=torch.float64)), LOG_P)


def test_lame_minimizes_its_objective():
    """The fixed point satisfies y = softmax(log p + K y), and no distribution near it has a lower value."""
    features = torch.randn(12, 6, dtype=torch.float64)
    k = affinity(features, "rbf", 5)
    log_y = adjusted(LOG_P, k)
    torch.testing.assert_close(log_y, (LOG_P + k @ log_y.exp()).log_softmax(1), rtol=1e-3, atol=1e-3)

    def value(log_y):
        y = log_y.exp()
        return (y * (log_y - LOG_P)).sum() - (k * (y @ y.T)).sum() / 2  # its stationary points are those above

    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        near = (log_y + 0.05 * torch.randn(12, 5, generator=generator, dtype=torch.float64)).log_softmax(1)
        assert value(near) > value(log_y)


def test_affinities_by_definition():
    features = torch.randn(7, 3, dtype=torch.float64)
    unit = features / features.norm(dim=1, keepdim=True)
    distances = (unit[:, None] - unit[None]).norm(dim=2)
    sigma = distances.sort(1).values[:, 2].mean()  # oneself is the first neighbor
    torch.testing.assert_close(affinity(features, "rbf", 3), (-(distances**2) / (2 * sigma**2)).exp())
    torch.testing.assert_close(affinity(features, "linear", 3), unit @ unit.T)
    near = affinity(features, "knn", 3)
    assert near.sum(1).tolist() == [3.0] * 7
    assert near.diagonal().sum() == 0
    assert all(distances[i][near[i] > 0].max() < distances[i][(near[i] == 0)].sort().values[1] for i in range(7))


@pytest.mark.parametrize("name", ["lame", "roid", "rotta"])
def test_two_classes_by_one_output_are_those_by_two(name, make):
    """A head of one output z stands for the logits (0, z): what is answered is what a head of both answers."""
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    one = Classifier(nn.Sequential(*layers), 4, 2, one_logit=True).double()
    two = Classifier(copy.deepcopy(one.backbone), 4, 2).double()
    with torch.no_grad():
        two.head.weight.copy_(torch.cat([torch.zeros(1, 4), one.head.weight]))
        two.head.bias.copy_(torch.cat([torch.zeros(1), one.head.bias]))
    options = {"roid": ["consistency=false", "update.optimizer=sgd"], "rotta": ["capacity=4", "interval=3"]}
    found = [
        alone.answers(make(name, *options.get(name, []), model=model), [alone.images(9), alone.images(9, 3)])
        for model in (one, two)
    ]
    torch.testing.assert_close(*found)


def test_lame_of_one_image_is_finite():
    assert adjusted(LOG_P[:1], affinity(torch.randn(1, 3, dtype=torch.float64), "rbf", 5)).isfinite().all()


# --- SHOT-IM ---------------------------------------------------------------------------------------------


def test_information_is_conditional_minus_marginal_entropy():
    mean = P.mean(0)
    expected = -(P * P.log()).sum(1).mean() + (mean * mean.log()).sum()
    torch.testing.assert_close(information(LOGITS), expected)
    assert information(torch.ones(4, 3)).item() == pytest.approx(0, abs=1e-6)
    sure = 100 * torch.eye(3, dtype=torch.float64)
    assert information(sure).item() == pytest.approx(-math.log(3))


def test_shot_fixes_the_head_and_learns_offline_before_it_predicts(make, stream, follow):
    setting = stream(NEVER, images=100)
    online, offline = make("shot_im"), make("shot_im", "passes=2")
    for method in (online, offline):
        before = copy.deepcopy(method.model.state_dict())
        follow(method, setting)
        after = method.model.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in ("head.weight", "head.bias"))
        assert not torch.equal(before["backbone.layers.0.weight"], after["backbone.layers.0.weight"])
    assert online.outcome["updates"] == 2
    assert offline.outcome["updates"] == 4
    # The published schedule at step 4 of 4.
    assert offline.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 11**-0.75)


# --- ROID ------------------------------------------------------------------------------------------------


def test_roid_terms_by_hand():
    clipped = P.clamp(max=0.99)
    for i, row in enumerate(clipped):
        expected = -sum(row[c] * math.log(row[c] / (1 - row[c]) + 1e-5) for c in range(5))
        assert soft_likelihood_ratio(P)[i].item() == pytest.approx(expected.item())
    other = torch.randn(12, 5, dtype=torch.float64).log_softmax(1)
    both = F.cross_entropy(LOGITS, other.exp(), reduction="none") + F.cross_entropy(other, P, reduction="none")
    torch.testing.assert_close(symmetric_cross_entropy(LOG_P, other), both / 2)


def test_roid_weights_and_prior():
    mean = torch.rand(5, dtype=torch.float64)
    diverse = torch.stack([1 - (mean @ p) / (mean.norm() * p.norm()) for p in P])
    certain = (P * LOG_P).sum(1)
    diverse, certain = ((v - v.min()) / (v.max() - v.min()) for v in (diverse, certain))
    expected = torch.where(diverse < diverse.mean(), 0.0, torch.exp(3 * diverse * certain))
    torch.testing.assert_close(sample_weights(LOG_P, mean, 1 / 3), expected)
    assert sample_weights(LOG_P[:1], mean, 1 / 3).tolist() == [1.0]
    smooth = (1 / 5) / P.mean(0).max()
    torch.testing.assert_close(smoothed_prior(LOG_P), (P.mean(0) + smooth) / (1 + 5 * smooth))
    assert smoothed_prior(LOG_P).sum().item() == pytest.approx(1)


def test_roid_ensembles_with_the_source(make, stream, follow):
    """With all weight on the source, it answers as batch statistics alone do, apart from the class prior."""
    setting = stream(NEVER)
    method = make("roid", "ensembling=0.0", "prior_correction=none", "update.lr=0.1")
    found, expected = follow(method, setting), follow(make("bn_adapt"), setting)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert method.outcome["distance"] == pytest.approx(0, abs=1e-6)


def test_roid_prior_multiplies_what_its_option_says(make, stream, follow):
    setting = stream(NEVER, images=50)
    plain, logits, bayes = (
        follow(make("roid", f"prior_correction={kind}"), setting)[0] for kind in ("none", "logits", "probabilities")
    )
    prior = smoothed_prior(log_softmax(plain))
    torch.testing.assert_close(logits, plain * prior)
    joint = plain.softmax(1) * prior
    torch.testing.assert_close(bayes.softmax(1), joint / joint.sum(1, keepdim=True))


def test_shot_learns_offline_from_windows_where_images_come_alone(make, stream, follow):
    method = make("shot_im", "passes=2", "update.lr=0.05")
    follow(method, stream(NEVER, size=1, window=25, images=100))
    assert method.outcome["updates"] == 8
    assert method.outcome["distance"] > 0.01  # of single images the information is 0 up to rounding


@pytest.mark.parametrize("passes", [0, 2])
def test_shot_refuses_what_it_could_not_learn_from(make, stream, passes):
    with pytest.raises(ValueError, match=r"single image is 0.*scenario.window$"):
        make("shot_im", f"passes={passes}").evaluate(stream(NEVER, size=1))


def test_shot_refuses_to_forget_before_every_batch_what_it_learned_before_the_first(make, stream):
    episodic = stream(Segment(reset="each_batch"))
    with pytest.raises(ValueError, match=r"passes=2 .* forgets before every batch: take method.passes=0"):
        make("shot_im", "passes=2").evaluate(episodic)
    make("shot_im").evaluate(episodic)

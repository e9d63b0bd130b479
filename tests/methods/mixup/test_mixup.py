"""Mixup and its variants: special cases that are plain training, sums written out, and what mixing must preserve."""

import copy
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.config.explain import composed
from fisherexp.data.batch import Batch
from fisherexp.methods.mixup.cutmix import CutMix, boxes
from fisherexp.methods.mixup.label_smoothing import LabelSmoothing
from fisherexp.methods.mixup.manifold_mixup import ManifoldMixup
from fisherexp.methods.mixup.mixing import (
    draw_lambda,
    intensities,
    mix,
    mixed_cross_entropy,
    mixed_squared_error,
    same_class_partners,
)
from fisherexp.methods.mixup.mixup import Mixup
from fisherexp.methods.mixup.same_class_mixup import SameClassMixup
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.metrics.calibration import CalibrationMetrics
from fisherexp.metrics.tasks import TaskMetrics
from fisherexp.models.classifier import Classifier
from fisherexp.models.mlp import MLP
from fisherexp.models.small_cnn import SmallCNN

torch.manual_seed(0)
IMAGES = torch.rand(12, 1, 8, 8, dtype=torch.float64)
LABELS = torch.randint(0, 3, (12,))
MODEL = Classifier(MLP([6, 5], input_shape=(1, 8, 8)), 5, 3).double()
LOGITS = torch.randn(12, 3, dtype=torch.float64)
OTHERS = LABELS[torch.randperm(12)]
VARIANTS = {
    "mixup": Mixup,
    "same_class": SameClassMixup,
    "cutmix": CutMix,
    "manifold": lambda model, recipe, **options: ManifoldMixup(model, recipe, [0, 1, 2], **options),
}


class Brightness(nn.Module):
    def forward(self, images):
        return images.mean((1, 2, 3))


def made(variant, **options):
    return variant(copy.deepcopy(MODEL), Recipe(), **options)


def seeded_loss(method, images=IMAGES, labels=LABELS):
    torch.manual_seed(1)
    return method.loss(Batch(images, labels))


@pytest.mark.parametrize("name", VARIANTS)
def test_without_mixing_every_variant_is_plain_training(name):
    """λ = 1, which alpha = 0 stands for."""
    torch.testing.assert_close(seeded_loss(made(VARIANTS[name], alpha=0.0)), made(ERM).loss(Batch(IMAGES, LABELS)))


@pytest.mark.parametrize("lam", [torch.tensor([0.3]), torch.rand(12)], ids=["batch", "sample"])
def test_mixed_loss_is_the_loss_to_the_mixed_target(lam):
    lam = lam.double()
    triples = zip(lam.expand(12), LABELS, OTHERS, strict=True)
    target = torch.stack([w * F.one_hot(y, 3) + (1 - w) * F.one_hot(o, 3) for w, y, o in triples])
    crossed = -(target * LOGITS.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(mixed_cross_entropy(LOGITS, LABELS, OTHERS, lam), crossed, rtol=0, atol=1e-12)
    squared = sum(0.5 * (z - t).square().sum() for z, t in zip(LOGITS, target, strict=True)) / 12
    torch.testing.assert_close(mixed_squared_error(LOGITS, LABELS, OTHERS, lam), squared, rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", [mixed_cross_entropy, mixed_squared_error])
def test_exchanging_the_partners_changes_nothing(loss):
    """λ with a permutation and 1 - λ with its inverse are the same mixtures in another order."""
    order, lam = torch.randperm(12), torch.tensor([0.3], dtype=torch.float64)
    inverse = order.argsort()
    mixed = mix(IMAGES, IMAGES[order], lam)
    torch.testing.assert_close(mix(IMAGES, IMAGES[inverse], 1 - lam), mixed[inverse])
    losses = [
        loss(MODEL(mix(IMAGES, IMAGES[p], w)), LABELS, LABELS[p], w) for p, w in ((order, lam), (inverse, 1 - lam))
    ]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-12)


def test_mixup_is_its_equation():
    found = seeded_loss(made(Mixup))
    torch.manual_seed(1)
    lam, order = draw_lambda(1.0, 1).double(), torch.randperm(12)
    logits = MODEL(lam * IMAGES + (1 - lam) * IMAGES[order])
    expected = lam * F.cross_entropy(logits, LABELS) + (1 - lam) * F.cross_entropy(logits, LABELS[order])
    torch.testing.assert_close(found, expected.squeeze())


def test_uint8_images_are_mixed_without_rounding():
    images = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8).view(2, 1, 1, 2)
    mixed = mix(intensities(images), intensities(images.flip(0)), torch.tensor([0.3]))
    torch.testing.assert_close(mixed.flatten(1), torch.tensor([[0.7, 0.3], [0.3, 0.7]]))
    model = MODEL.normalize(images)
    torch.testing.assert_close(MODEL.normalize(intensities(images)), model.float(), check_dtype=False)


@pytest.mark.parametrize("count", [1, 20_000])
def test_lambda_is_drawn_from_the_beta_distribution(count):
    torch.manual_seed(0)
    lam = draw_lambda(2.0, count)
    assert lam.shape == (count,)
    assert ((lam >= 0) & (lam <= 1)).all()
    if count > 1:
        assert lam.mean().item() == pytest.approx(0.5, abs=0.01)
        assert lam.var().item() == pytest.approx(0.05, abs=0.002)  # 1 / (4 (2α + 1))


@pytest.mark.parametrize("lambda_per", ["batch", "sample"])
def test_one_weight_for_the_batch_or_one_for_each_sample(lambda_per, monkeypatch):
    seen = []
    monkeypatch.setattr("fisherexp.methods.mixup.mixup.draw_lambda", lambda a, n: seen.append(n) or torch.ones(n))
    made(Mixup, lambda_per=lambda_per).loss(Batch(IMAGES, LABELS))
    assert seen == [1 if lambda_per == "batch" else 12]


def test_same_class_partners_are_a_permutation_within_classes():
    labels = torch.randint(0, 4, (200,))
    partners = same_class_partners(labels)
    assert torch.equal(partners.sort().values, torch.arange(200))
    assert torch.equal(labels[partners], labels)
    moved = (partners != torch.arange(200)).double().mean()
    assert moved > 0.9  # one fixed point per class on average


def test_same_class_mixup_pairs_within_classes(monkeypatch):
    """The class, against the loss of the pairs it names: labels stay, images do not."""
    method, drawn = made(SameClassMixup), torch.tensor([0.3])
    monkeypatch.setattr("fisherexp.methods.mixup.mixup.draw_lambda", lambda alpha, count: drawn)
    torch.manual_seed(1)
    partners = same_class_partners(LABELS)
    images = mix(intensities(IMAGES), intensities(IMAGES)[partners], drawn)
    expected = F.cross_entropy(made(ERM).model(images), LABELS)
    torch.testing.assert_close(seeded_loss(method), expected)
    assert not torch.equal(partners, torch.arange(len(LABELS)))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 11)])
def test_box_is_a_rectangle_of_the_drawn_sides_cut_at_the_border(height, width):
    torch.manual_seed(0)
    lam = torch.rand(300)
    inside = boxes(lam, height, width)
    assert inside.shape == (300, 1, height, width)
    for mask, weight in zip(inside[:, 0], lam, strict=True):
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None, :])
        sides = [2 * (int((1 - weight).sqrt() * length) // 2) for length in (height, width)]
        if 0 in sides:
            assert not mask.any()
            continue
        for line, side in zip((rows, columns), sides, strict=True):
            at_border = bool(line[0] or line[-1])
            assert line.sum() == side or (at_border and line.sum() < side)
            assert line.int().diff().abs().sum() <= 2  # one piece


def test_cutmix_weighs_labels_by_the_pixels_that_are_left():
    """A model that averages the pixels sees how much of each image is there."""
    first, second = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    method = CutMix(Brightness(), Recipe())
    for seed in range(20):
        torch.manual_seed(seed)
        pasted, lam = method.mixed_outputs(torch.cat([first, second]), torch.tensor([1, 0]), torch.rand(1))
        torch.testing.assert_close(pasted, torch.stack([1 - lam[0], lam[0]]))


def test_cutmix_with_probability_zero_is_plain_training():
    torch.testing.assert_close(seeded_loss(made(CutMix, probability=0.0)), made(ERM).loss(Batch(IMAGES, LABELS)))


def test_manifold_mixup_at_the_input_is_mixup():
    manifold = ManifoldMixup(MODEL, Recipe(), [0])
    lam, order = torch.tensor([0.3], dtype=torch.float64), torch.randperm(12)
    expected, _ = made(Mixup).mixed_outputs(IMAGES, order, lam)
    torch.testing.assert_close(manifold.mixed_outputs(IMAGES, order, lam)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", [1, 2])
def test_manifold_mixup_mixes_what_leaves_a_stage(layer):
    manifold = ManifoldMixup(MODEL, Recipe(), [layer])
    lam, order = torch.tensor([0.3], dtype=torch.float64), torch.randperm(12)
    layers = list(MODEL.backbone.layers)
    below, above = nn.Sequential(*layers[: 2 * layer + 1]), nn.Sequential(*layers[2 * layer + 1 :])
    hidden = below(MODEL.normalize(IMAGES))
    expected = MODEL.head(above(lam * hidden + (1 - lam) * hidden[order]))
    torch.testing.assert_close(manifold.mixed_outputs(IMAGES, order, lam)[0], expected)
    torch.testing.assert_close(MODEL(IMAGES), MODEL.head(above(hidden)))  # and no hook is left behind


def test_manifold_mixup_draws_its_layers_evenly(monkeypatch):
    """With the published choice of layers, which is the default."""
    layers = composed(["method=manifold_mixup"]).method.layers
    assert list(layers) == [0, 1, 2]
    seen = []
    where = "fisherexp.methods.mixup.manifold_mixup.changed_after"
    monkeypatch.setattr(where, lambda model, layer, change: seen.append(layer) or nullcontext())
    manifold = ManifoldMixup(MODEL, Recipe(), layers)
    torch.manual_seed(0)
    for _ in range(3000):
        manifold.mixed_outputs(IMAGES[:1], torch.zeros(1).long(), torch.ones(1))
    # standard deviation of each share: 0.0086
    assert [seen.count(k) / 3000 for k in (0, 1, 2)] == pytest.approx([1 / 3] * 3, abs=0.03)


def test_a_stage_the_network_does_not_have_is_one_line():
    with pytest.raises(ValueError, match=r"^SmallCNN has no stage 4: the last one is 3$"):
        ManifoldMixup(Classifier(SmallCNN(4, input_shape=(1, 8, 8)), 8, 3), Recipe(), [0, 4])
    with pytest.raises(ValueError, match=r"^Identity has no stage 1: it names none$"):
        ManifoldMixup(Classifier(nn.Identity(), 8, 3), Recipe(), [1])


def test_label_smoothing_is_the_cross_entropy_to_the_smoothed_target():
    target = 0.9 * F.one_hot(LABELS, 3) + 0.1 / 3
    expected = -(target * MODEL(IMAGES).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(made(LabelSmoothing, epsilon=0.1).loss(Batch(IMAGES, LABELS)), expected)
    torch.testing.assert_close(
        made(LabelSmoothing, epsilon=0.0).loss(Batch(IMAGES, LABELS)), made(ERM).loss(Batch(IMAGES, LABELS))
    )


@pytest.mark.parametrize(("metrics", "kept"), [(CalibrationMetrics, set()), (TaskMetrics, {"mean_accuracy"})])
def test_outputs_that_are_no_logits_are_evaluated_by_accuracy_alone(metrics, kept):
    """A softmax of outputs near one-hot targets is never far from 1/C: no likelihood, no confidence."""
    found = {}
    for loss in ("ce", "mse"):
        method = made(Mixup, loss=loss)
        method.evaluate(SimpleNamespace(evaluation=partial(metrics, ("test",))))
        method.test_step(Batch(IMAGES, LABELS), 0)
        found[loss] = method.evaluation.compute()
    assert set(found["mse"]) == {"test_accuracy"} | kept < set(found["ce"])
    assert found["mse"]["test_accuracy"] == found["ce"]["test_accuracy"]

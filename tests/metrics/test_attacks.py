"""Attacks and accuracy under them: the optimum of a linear model, the box, and classes counted by hand."""

import pytest
import torch
from torch import nn

from fisherexp.data.batch import Batch
from fisherexp.metrics.attacks import pgd, uniform_start
from fisherexp.metrics.robustness import RobustnessMetrics

WEIGHT = torch.tensor([1.0, -2.0, 0.5, -0.1])


def test_of_a_linear_objective_ascent_finds_the_corner_of_the_box():
    images = torch.full((3, 4), 0.5)
    found = pgd(lambda x: x @ WEIGHT, images, uniform_start(images, 0.1), 0.1, step=0.05, steps=4)
    torch.testing.assert_close(found, images + 0.1 * WEIGHT.sign())


def test_images_stay_images_and_near_and_weights_get_no_gradient():
    torch.manual_seed(0)
    images, model = torch.rand(20, 6), nn.Linear(6, 1)
    start = uniform_start(images, 0.3)
    assert (start - images).abs().max() <= 0.3
    found = pgd(lambda x: model(x.sin())[:, 0], images, start, 0.3, step=0.2, steps=3)
    assert (found - images).abs().max() <= 0.3 + 1e-6
    assert 0 <= found.min() <= found.max() <= 1
    assert all(p.grad is None for p in model.parameters())


class Threshold(nn.Module):
    """Class 1 where the mean of an image is above a half, else class 0; classes 2 and 3 never."""

    def forward(self, images):
        images = images.float() / 255 if images.dtype == torch.uint8 else images
        z = images.flatten(1).mean(1) - 0.5
        return 20 * torch.stack([-z, z, -1 + 0 * z, -1 + 0 * z], 1)


@pytest.mark.parametrize("inference", [True, False])
def test_accuracy_under_attack_counts_images_far_enough_from_the_border(inference):
    """Means 0.30, 0.42 (class 0) and 0.52, 0.58, 0.75 (class 1) with a radius of 0.1; one image of class 2."""
    means, labels = torch.tensor([0.30, 0.42, 0.52, 0.58, 0.75, 0.9]), torch.tensor([0, 0, 1, 1, 1, 2])
    images = (255 * means).round().to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    metrics = RobustnessMetrics(("test",), num_classes=4, radius=0.1, steps=20)
    with torch.inference_mode(inference):
        batch = Batch(images.clone(), labels)
        metrics.update(0, Threshold()(batch.inputs), batch.targets)
        metrics.ask(0, Threshold(), batch)
    found = metrics.compute()
    assert found["test_accuracy"] == pytest.approx(100 * 5 / 6)
    assert found["test_robust"] == pytest.approx(100 * 2 / 6)  # 0.30 and 0.75
    assert found["test_worst"] == found["test_tail"] == 0  # class 2; a class without samples has no say
    assert metrics.robust[0].tolist() == [1, 1, 0, 0]


def test_the_tail_is_the_mean_over_the_weakest_classes():
    metrics = RobustnessMetrics(("test",), num_classes=10, radius=0.1, steps=1)
    metrics.samples[0] = torch.full((10,), 20.0)
    metrics.robust[0] = torch.arange(10.0) + 1
    metrics.count[0] = 200
    metrics._update_count = 1  # torchmetrics warns of figures of nothing
    found = metrics.compute()
    assert (found["test_worst"], found["test_tail"]) == pytest.approx((5.0, 10.0))


def test_auto_attack_is_no_weaker_than_ours():
    pytest.importorskip("pyautoattack")
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), torch.rand(30, 1, 4, 4)
    metrics = RobustnessMetrics(("test",), num_classes=5, radius=0.05, steps=20, auto_attack=True)
    labels = model(images).argmax(1)
    metrics.update(0, model(images), labels)
    metrics.ask(0, model, Batch(images, labels))
    found = metrics.compute()
    assert 0 < found["test_auto"] <= found["test_robust"] < 100

"""What is said of tasks that were learned one after the other."""

import pytest
import torch

from fisherexp.metrics.tasks import SequenceMetrics, forgetting


def test_forgetting_is_the_fall_from_the_best_former_accuracy():
    matrix = [[90.0, 10.0, 10.0], [95.0, 80.0, 20.0], [60.0, 85.0, 99.0]]
    assert forgetting(matrix) == pytest.approx(((95 - 60) + (80 - 85)) / 2)
    with pytest.raises(ValueError, match="two rows"):
        forgetting(matrix[:1])


def test_means_are_over_tasks_and_images_put_aside_count_apart():
    metric = SequenceMetrics(("a", "b"))
    right, wrong = torch.eye(4) * 9, torch.eye(4).roll(1, 0) * 9
    for part, logits in enumerate((right, wrong, right, right)):
        metric.update(part, logits, torch.arange(4))
    found = metric.compute()
    assert (found["mean_accuracy"], found["validation_accuracy"]) == (50.0, 100.0)
    assert (found["a_accuracy"], found["b_accuracy"]) == (100.0, 0.0)
    # A column for every task would not fit a screen.
    assert set(metric.headings) == {"mean_accuracy", "validation_accuracy", "forgetting"}
    shown = {"mean_accuracy", "a_accuracy", "b_accuracy", "validation_accuracy", "forgetting", "loss_rise"}
    assert set(metric.better) == shown

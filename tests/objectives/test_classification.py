"""Classification against plain torch and against the curvature engine's likelihood of that name."""

import pytest
import torch
from torch.nn import functional as F

from fisherexp.metrics.calibration import CalibrationMetrics
from fisherexp.objectives.classification import Classification

torch.manual_seed(0)
LOGITS, CLASSES = torch.randn(7, 4, dtype=torch.float64), torch.randint(0, 4, (7,))
OBJECTIVE = Classification()


def test_loss_of_each_sample_is_minus_its_log_probability():
    p = LOGITS.exp() / LOGITS.exp().sum(1, keepdim=True)
    expected = torch.stack([-p[i, y].log() for i, y in enumerate(CLASSES.tolist())])
    torch.testing.assert_close(OBJECTIVE.sample_losses(LOGITS, CLASSES), expected)
    torch.testing.assert_close(OBJECTIVE.loss(LOGITS, CLASSES), expected.mean())
    torch.testing.assert_close(OBJECTIVE.loss(LOGITS, CLASSES, reduction="sum"), expected.sum())


def test_loss_is_that_of_torch_to_the_bit():
    logits = LOGITS.float()
    assert torch.equal(OBJECTIVE.loss(logits, CLASSES), F.cross_entropy(logits, CLASSES))


def test_metrics_are_accuracy_likelihood_and_calibration():
    metrics = OBJECTIVE.metrics(("validation", "test"), "validation")
    assert isinstance(metrics, CalibrationMetrics)
    metrics.update(0, LOGITS, CLASSES)
    metrics.update(1, LOGITS, CLASSES)
    found = metrics.compute()
    assert found["test_nll"] == pytest.approx(F.cross_entropy(LOGITS, CLASSES).item())
    assert found["test_accuracy"] == pytest.approx(100 * (LOGITS.argmax(1) == CLASSES).double().mean().item())

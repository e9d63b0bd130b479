"""WiSE-FT and BANG: end points, the linear case, and what fine-tunes the model."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.data.batch import Batch
from fisherexp.methods.merging.bang import SmoothedMixup
from fisherexp.methods.merging.wise_ft import WiSEFT
from fisherexp.methods.recipe import Recipe


@pytest.fixture
def wise_ft():
    """Of the second of several experts."""
    return WiSEFT(model=nn.Linear(1, 1), experts=None, alphas=[0.5], expert=1)


def test_end_points_are_exact(wise_ft, base, models):
    for alpha, end in ((0.0, base), (1.0, models[1])):
        for found in (wise_ft.merged(base, models, alpha), wise_ft.merged_buffers(base, models, alpha)):
            assert all(torch.equal(found[name], tensor) for name, tensor in end.items())


def test_an_expert_of_no_task_is_refused(wise_ft, models):
    wise_ft.given = {"experts": {"plain": models[0]}}
    with pytest.raises(ValueError, match=r"method\.expert=1: there are 1 tasks, 0 … 0"):
        wise_ft.grid()


def test_of_linear_models_weights_and_logits_are_averaged_alike(wise_ft, base, models):
    x = torch.randn(4, 5, dtype=torch.float64)
    found = wise_ft.merged(base, models, 0.7)
    logits = [F.linear(x, state["a.weight"], state["a.bias"]) for state in (base, models[1], found)]
    torch.testing.assert_close(logits[2], 0.3 * logits[0] + 0.7 * logits[1])


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_smoothed_mixup_without_mixing_is_label_smoothing(epsilon):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images, labels = torch.rand(6, 1, 2, 2), torch.arange(6) % 3
    method = SmoothedMixup(model=model, training=Recipe(), alpha=0.0, epsilon=epsilon)
    expected = F.cross_entropy(model(images), labels, label_smoothing=epsilon)
    torch.testing.assert_close(method.loss(Batch(images, labels)), expected)


def test_smoothed_mixup_is_cross_entropy_to_the_mixed_and_smoothed_target():
    torch.manual_seed(0)
    logits, labels, others, lam = torch.randn(6, 3), torch.arange(6) % 3, torch.arange(6) % 2, torch.tensor([0.3])
    method = SmoothedMixup(model=nn.Linear(1, 1), training=Recipe(), epsilon=0.2)
    target = 0.8 * (0.3 * F.one_hot(labels, 3) + 0.7 * F.one_hot(others, 3)) + 0.2 / 3
    torch.testing.assert_close(method.mixed_loss(logits, labels, others, lam), F.cross_entropy(logits, target))


def test_a_squared_error_has_no_smoothed_targets():
    with pytest.raises(ValueError, match="loss=mse"):
        SmoothedMixup(model=nn.Linear(1, 1), training=Recipe(), loss="mse")

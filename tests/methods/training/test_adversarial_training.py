"""Adversarial training, TRADES and MART: losses by their definitions, and limits in which they are plain training."""

import contextlib

import pytest
import torch
from torch.nn import functional as F

from fisherexp.data.batch import Batch
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.adversarial_training import AdversarialTraining, evaluating
from fisherexp.methods.training.mart import MART, boosted_cross_entropy
from fisherexp.methods.training.trades import TRADES
from fisherexp.models.classifier import Classifier
from fisherexp.models.mlp import MLP


def made(cls, **options):
    torch.manual_seed(0)
    return cls(model=Classifier(MLP([16], input_shape=(1, 4, 4)), 16, 5), training=Recipe(), **options)


torch.manual_seed(0)
IMAGES, LABELS = torch.rand(12, 1, 4, 4), torch.randint(5, (12,))
BATCH = Batch(IMAGES, LABELS)


def loss_of(method):
    torch.manual_seed(1)
    return method.loss(BATCH)


def test_the_loss_is_that_of_images_that_are_worse_and_near():
    method = made(AdversarialTraining, radius=0.2)
    torch.manual_seed(1)
    images = method.attacked(IMAGES, LABELS)
    assert (images - IMAGES).abs().max() <= 0.2 + 1e-6
    attacked, clean = (F.cross_entropy(method.model(x), LABELS) for x in (images, IMAGES))
    torch.testing.assert_close(loss_of(method), attacked)
    assert attacked > 1.03 * clean


def test_without_room_to_move_all_are_plain_training_but_for_marts_second_term():
    plain = F.cross_entropy(made(AdversarialTraining).model(IMAGES), LABELS)
    for cls in (AdversarialTraining, TRADES):
        torch.testing.assert_close(loss_of(made(cls, radius=1e-9)), plain, rtol=1e-4, atol=0)
    method = made(MART, radius=1e-9)
    expected = boosted_cross_entropy(method.model(IMAGES), LABELS).mean()
    torch.testing.assert_close(loss_of(method), expected, rtol=1e-4, atol=0)


def test_trades_adds_the_divergence_of_what_is_said_of_attacked_images():
    method = made(TRADES, beta=3.0, radius=0.2)
    torch.manual_seed(1)
    images = method.moved(IMAGES)
    clean, other = (method.model(x).softmax(1) for x in (IMAGES, images))
    divergence = (clean * (clean / other).log()).sum(1).mean()
    torch.testing.assert_close(loss_of(method), F.cross_entropy(method.model(IMAGES), LABELS) + 3 * divergence)
    assert divergence > 0.001


def test_mart_weights_the_divergence_by_how_unsure_the_model_is():
    method = made(MART, lambda_=2.0, radius=0.2)
    torch.manual_seed(1)
    images = method.attacked(IMAGES, LABELS)
    clean, other = (method.model(x).softmax(1) for x in (IMAGES, images))
    own = clean[torch.arange(12), LABELS]
    divergence = (clean * (clean / other).log()).sum(1)
    losses = []
    for p, label in zip(other, LABELS.tolist(), strict=True):
        rest = torch.cat([p[:label], p[label + 1 :]])
        losses.append(-p[label].log() - (1 - rest.max()).log())
    expected = (torch.stack(losses) + 2 * (1 - own) * divergence).mean()
    torch.testing.assert_close(loss_of(method), expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_comes_back(training):
    model = made(AdversarialTraining).model.train(training)
    with contextlib.suppress(KeyError), evaluating(model):
        assert not model.training
        raise KeyError
    assert model.training == training

"""FTWT: what fired by its rule, what masks cost and save, and whom the predictors' loss reaches."""

import pytest
import torch
from torch import nn

from fisherexp.methods.compression.ftwt import FTWT
from fisherexp.methods.compression.predicted_masks import (
    MaskPredictor,
    fired,
    gated_layers,
    gated_multiply_adds,
    predicted,
    random_masks,
    uniformly_fired,
)
from fisherexp.methods.recipe import Recipe
from fisherexp.models.classifier import Classifier
from fisherexp.models.resnet import ResNet18
from fisherexp.models.small_cnn import SmallCNN

GENERATOR = torch.Generator().manual_seed(0)
ACTIVATIONS = torch.rand(50, 12, 3, 3, generator=GENERATOR) ** 4


def method(**options) -> FTWT:
    torch.manual_seed(0)
    model = Classifier(SmallCNN(width=4, input_shape=(1, 8, 8)), 8, 3)
    given = {"mass": 0.8, "by": "mass", "coupling": "decoupled", "cooldown": 0.5, "pooling": "norm"}
    given |= {"softmax": "scaled", "predictor_lr": 0.1, "test_mask": "predicted"}
    return FTWT(model, **(given | options), training=Recipe(epochs=4), fraction_bits=6)


@pytest.mark.parametrize("mass", [0.5, 0.7, 0.95])
def test_what_fired_carries_the_mass_and_with_the_next_filter_more(mass):
    mask = fired(ACTIVATIONS, mass)
    peak = ACTIVATIONS.amax(dim=(2, 3))
    share = peak / peak.sum(dim=1, keepdim=True)
    kept = (share * mask).sum(dim=1)
    following = share.masked_fill(mask, 0).amax(dim=1)
    several = mask.sum(dim=1) > 1
    assert several.any()
    assert (kept[several] <= mass + 1e-5).all()
    assert (kept + following > mass).all()
    assert share.masked_fill(~mask, 1).amin(dim=1).ge(following).all()
    assert mask.any(dim=1).all()


def test_all_of_the_mass_is_all_that_is_active_and_one_stays_whatever_it_carries():
    activations = torch.tensor([[9.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])[:, :, None, None]
    assert fired(activations, 1).tolist() == [[True, True, False], [True] * 3, [True, False, False]]
    assert fired(activations, 0.5).tolist()[0] == [True, False, False]  # the authors' code: none


def test_uniform_drops_as_many_of_each_image_and_the_dead():
    mask = uniformly_fired(ACTIVATIONS, 0.25)
    assert (mask.sum(dim=1) == 9).all()
    peak = ACTIVATIONS.amax(dim=(2, 3))
    assert (peak.masked_fill(~mask, 2).amin(dim=1) > peak.masked_fill(mask, 0).amax(dim=1)).all()
    dead = ACTIVATIONS.clone()
    dead[:, :5] = 0
    assert (uniformly_fired(dead, 0.25)[:, :5] == 0).all()
    assert uniformly_fired(ACTIVATIONS, 0.0).all()


def test_random_masks_have_as_many_filters_and_others():
    mask = fired(ACTIVATIONS, 0.7)
    found = random_masks(mask, GENERATOR)
    assert torch.equal(found.sum(dim=1), mask.sum(dim=1))
    assert not torch.equal(found, mask)


@pytest.mark.parametrize("groups", [1, 4])
def test_masks_of_all_cost_what_the_network_costs_and_images_are_counted_one_by_one(groups):
    conv = nn.Conv2d(8, 12, 3, groups=groups)
    whole = gated_multiply_adds(conv, torch.tensor([8]), torch.tensor([12]), places=5)
    assert whole.item() == 5 * conv.weight.numel()
    each = gated_multiply_adds(conv, torch.tensor([8, 4]), torch.tensor([2, 10]), places=5)
    assert each.tolist() == [2 * 5 * 9 * (8 // groups), 10 * 5 * 9 * (4 // groups)]
    assert each.double().mean() != gated_multiply_adds(conv, torch.tensor([6]), torch.tensor([6]), places=5).item()


def test_pooling_and_softmax_of_a_predictor():
    inputs = torch.rand(4, 6, 3, 3, generator=GENERATOR)
    for pooling, pooled in (("mean", inputs.mean((2, 3))), ("norm", inputs.square().sum((2, 3)).sqrt())):
        for softmax, scaled in (("none", pooled), ("plain", pooled.softmax(1)), ("scaled", 6 * pooled.softmax(1))):
            predictor = MaskPredictor(6, 5, pooling, softmax)
            torch.testing.assert_close(predictor(inputs), predictor.linear(scaled))
    assert predicted(torch.tensor([[-2.0, -1.0], [1.0, 0.0]])).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(("coupling", "reached"), [("decoupled", False), ("joint", True)])
def test_the_predictors_loss_reaches_the_network_only_if_they_are_joint(coupling, reached):
    coupled = method(coupling=coupling)
    coupled.model(torch.rand(5, 1, 8, 8, generator=GENERATOR))
    coupled.mask_loss().backward()
    gradients = [parameter.grad for parameter in coupled.model.parameters() if parameter.grad is not None]
    assert any(gradient.any() for gradient in gradients) == reached
    assert all(parameter.grad.any() for parameter in coupled.predictors.parameters())


def test_the_task_does_not_reach_the_predictors_and_their_loss_is_binary_cross_entropy():
    gated = method()
    gated.model(torch.rand(5, 1, 8, 8, generator=GENERATOR)).sum().backward()
    assert all(parameter.grad is None for parameter in gated.predictors.parameters())
    by_hand = 0.0
    for logits, _, target, _ in gated.passes.values():
        p = logits.detach().sigmoid()
        by_hand -= torch.where(target, p.log(), (1 - p).log()).sum() / len(logits)
    assert gated.mask_loss().item() == pytest.approx(by_hand.item() / 3, rel=1e-5)
    assert gated.predicted_epochs == 2


def test_without_masks_it_is_the_dense_network_and_masks_differ_between_images():
    gated, images = method(test_mask="none"), torch.rand(20, 1, 8, 8, generator=GENERATOR)
    plain = Classifier(SmallCNN(width=4, input_shape=(1, 8, 8)), 8, 3)
    plain.load_state_dict(gated.model.state_dict())
    torch.testing.assert_close(gated.model.eval()(images), plain.eval()(images))
    gated.test_mask = "fired"
    assert not torch.allclose(gated.model(images), plain(images))
    masks = gated.passes[2][1]
    assert len({tuple(mask.tolist()) for mask in masks}) > 1


def test_networks_that_are_no_chain_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"ftwt needs a chain .*nearest: model=small_cnn"):
        gated_layers(ResNet18(width=8, input_shape=(1, 8, 8)))
    with pytest.raises(ValueError, match="there is none"):
        gated_layers(nn.Linear(2, 2))


def test_training_saves_multiply_adds_and_keeps_the_models_names(fitted):
    options = ["method.training.epochs=2", "method.mass=0.5", "data.train_size=300"]
    fit, source, _ = fitted("ftwt", *options, model=["model=small_cnn", "model.width=4"])
    found = fit.outcome["metrics"]
    assert fit.model.state_dict().keys() == source.keys()
    dense = 64 * 4 * 9 + 16 * 4 * 8 * 9 + 4 * 8 * 8 * 9
    assert 10 < found["cut"] < 95
    assert found["multiply_adds"] < dense + 80
    fit.test_mask = "none"
    gated, whole, _ = fit.measured()
    assert gated == whole == dense

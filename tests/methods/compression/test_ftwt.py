"""FTWT: what fired by its rule, what masks cost and save, and whom the predictors' loss reaches."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.methods.compression.ftwt import FTWT
from fisherexp.methods.compression.gated_layers import active_multiply_adds, gated_layers, gated_multiply_adds
from fisherexp.methods.compression.predicted_masks import (
    MaskPredictor,
    fired,
    predicted,
    random_masks,
    uniformly_fired,
)
from fisherexp.methods.recipe import Recipe
from fisherexp.models.classifier import Classifier
from fisherexp.models.resnet import ResNet18
from fisherexp.models.small_cnn import SmallCNN
from fisherexp.models.wide_resnet import WideResNet

GENERATOR = torch.Generator().manual_seed(0)
ACTIVATIONS = torch.rand(50, 12, 3, 3, generator=GENERATOR) ** 4


CHAIN, RESIDUAL = partial(SmallCNN, width=4), partial(ResNet18, width=4)
NETWORKS = [(CHAIN, "before"), (RESIDUAL, "before"), (RESIDUAL, "after")]


def method(network=CHAIN, **options) -> FTWT:
    torch.manual_seed(0)
    backbone = network(input_shape=(1, 8, 8))
    given = {"mass": 0.8, "by": "mass", "coupling": "decoupled", "cooldown": 0.5, "pooling": "norm"}
    given |= {"softmax": "scaled", "predictor_lr": 0.1, "test_mask": "predicted", "residual_mask": "before"}
    model = Classifier(backbone, backbone.num_features, 3)
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
    whole = active_multiply_adds(conv, torch.tensor([8]), torch.tensor([12]), places=5)
    assert whole.item() == 5 * conv.weight.numel()
    each = active_multiply_adds(conv, torch.tensor([8, 4]), torch.tensor([2, 10]), places=5)
    assert each.tolist() == [2 * 5 * 9 * (8 // groups), 10 * 5 * 9 * (4 // groups)]
    assert each.double().mean() != active_multiply_adds(conv, torch.tensor([6]), torch.tensor([6]), places=5).item()


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


def test_the_schedule_is_the_networks_and_predictors_keep_their_rate():
    gated = method(predictor_lr=0.3)
    recipe = Recipe(epochs=4, lr=0.02, schedule="multistep", milestones=[1, 3], gamma=0.1, warmup_epochs=1)
    gated.training_recipe, gated.steps_per_epoch = recipe, 2
    configured = gated.configure_optimizers()
    optimizer, scheduler, rates = configured["optimizer"], configured["lr_scheduler"]["scheduler"], []
    for _ in range(8):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step(), scheduler.step()
    network, predictors = zip(*rates, strict=True)
    assert network == pytest.approx([0.02 * recipe.factor(step, 2) for step in range(8)])
    assert len(set(network)) == 4
    assert set(predictors) == {0.3}
    assert optimizer.param_groups[1]["params"] == list(gated.predictors.parameters())


@pytest.mark.parametrize(("network", "residual_mask"), NETWORKS)
def test_without_masks_it_is_the_dense_network_and_masks_differ_between_images(network, residual_mask):
    gated = method(network, residual_mask=residual_mask, test_mask="none")
    images, plain = torch.rand(20, 1, 8, 8, generator=GENERATOR), method(network).model
    for layer in plain.modules():
        layer._forward_hooks.clear(), layer._forward_pre_hooks.clear()
    torch.testing.assert_close(gated.model.eval()(images), plain.eval()(images))
    gated.test_mask = "fired"
    assert not torch.allclose(gated.model(images), plain(images))
    assert any(len({tuple(mask.tolist()) for mask in masks}) > 1 for _, masks, *_ in gated.passes.values())


@pytest.mark.parametrize("residual_mask", ["before", "after"])
def test_the_last_filters_of_a_block_are_masked_before_its_shortcut_is_added_or_after(residual_mask):
    gated = method(RESIDUAL, residual_mask=residual_mask)
    numbers = {name: number for number, name in enumerate(gated_layers(gated.model))}
    block, inputs = gated.model.eval().backbone.stages[2], torch.rand(20, 4, 4, 4, generator=GENERATOR)
    found = block(inputs)
    masks = [gated.passes[numbers[f"backbone.stages.2.residual.{place}"]][1][..., None, None] for place in (0, 3)]
    assert not any(mask.all() for mask in masks)

    def normalized(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
        convolved = F.conv2d(x, conv.weight, stride=conv.stride, padding=conv.padding)
        return F.batch_norm(convolved, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    conv, norm, _, second, last_norm = block.residual
    branch = normalized(second, last_norm, normalized(conv, norm, inputs).relu() * masks[0])
    shortcut = normalized(*block.shortcut, inputs)
    wanted = {"before": (shortcut + branch * masks[1]).relu(), "after": (shortcut + branch).relu() * masks[1]}
    torch.testing.assert_close(found, wanted[residual_mask])
    assert not torch.allclose(wanted["before"], wanted["after"])


@pytest.mark.parametrize(("network", "residual_mask"), NETWORKS)
def test_multiply_adds_are_those_of_channels_that_have_something(network, residual_mask, monkeypatch):
    """The oracle looks at what convolutions are given, and which of their filters go on; all that is not masked is
    positive here."""
    masked = lambda logits: torch.rand(logits.shape, generator=GENERATOR) < 0.6  # noqa: E731
    monkeypatch.setattr("fisherexp.methods.compression.ftwt.predicted", masked)
    gated = method(network, residual_mask=residual_mask)
    given, images = {}, torch.rand(7, 1, 8, 8, generator=GENERATOR)
    for name, module in gated.model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 1e-3), nn.init.ones_(module.bias)
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, inputs, output, n=name: given.update({n: (inputs[0], output)}))
    layers = gated_layers(gated.model, residual_mask)
    gated.model.eval()(images)
    masks = {name: gated.passes[number][1] for number, name in enumerate(layers)}
    wanted = torch.zeros(len(images), dtype=torch.int64)
    for name, (inputs, output) in given.items():
        outputs = masks.get(name)
        if outputs is None:  # a shortcut's convolution
            last = masks[name.replace("shortcut.0", "residual.3")]
            outputs = last if residual_mask == "after" else torch.ones_like(last)
        kernel = gated.model.get_submodule(name).weight[0, 0].numel()
        wanted += inputs.flatten(2).any(2).sum(1) * outputs.sum(1) * kernel * output[0, 0].numel()
    _, of_layers, _, places = zip(*gated.passes.values(), strict=True)
    found, dense = gated_multiply_adds(layers.values(), of_layers, places)
    assert torch.equal(found, wanted)
    assert len(set(found.tolist())) > 1
    convolutions = {name: gated.model.get_submodule(name).weight.numel() for name in given}
    assert dense == sum(output[0, 0].numel() * convolutions[name] for name, (_, output) in given.items())


def test_networks_that_are_no_chain_are_refused_in_one_line():
    for network in (partial(ResNet18, width=8, norm="group"), partial(WideResNet, depth=10, widen=1)):
        with pytest.raises(ValueError, match=r"ftwt needs convolutions .*nearest: model=small_cnn, model=resnet18"):
            gated_layers(network(input_shape=(1, 8, 8)))
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

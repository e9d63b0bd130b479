"""Shapes of weights that a model begins with (GG init), or is given after training (DeepShape)."""

import pytest
import torch
from torch import nn

from fisherexp.methods.compression.deep_shape import deep_shape_
from fisherexp.methods.compression.exp_golomb import encode, ranked
from fisherexp.methods.compression.generalized_gaussian import estimated_shape, reshaped
from fisherexp.methods.compression.gg_init import gg_init_


@pytest.mark.parametrize(
    ("shape", "fan", "expected"), [(2.0, "in", 2 / 90), (0.7, "out", 2 / 360), (1.0, "in", 2 / 90)]
)
def test_a_start_has_shape_and_variance_by_its_fan(shape, fan, expected):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(10, 40, 3), nn.BatchNorm2d(40), nn.Linear(90, 360))
    assert gg_init_(model, shape, 2.0, fan) == ["0", "2"]
    for layer in (model[0], model[2]):
        # 3600 and 32400 draws
        assert layer.weight.square().mean().item() == pytest.approx(expected, rel=0.15)
        assert (layer.bias == 0).all()
    assert estimated_shape([model[2].weight]) == pytest.approx(shape, abs=0.06)
    assert (model[1].weight == 1).all()


@pytest.mark.parametrize("edit", [lambda m: gg_init_(m, 2.0, 2.0, "in"), lambda m: deep_shape_(m, 0.8, 1.0)])
def test_a_model_without_layers_is_refused_in_one_line(edit):
    with pytest.raises(ValueError, match="LayerNorm has no"):
        edit(nn.LayerNorm(3))


def test_the_method_draws_anew_and_trains(fitted):
    drawn, _, _ = fitted("gg_init", "method.training.epochs=0", "method.shape=0.5", "method.fraction_bits=20")
    drawn.setup("fit")
    assert estimated_shape([drawn.model.backbone.layers[1].weight]) < 0.8


@pytest.mark.parametrize(("factor", "scale"), [(0.8, 1.0), (0.5, 0.6)])
def test_deep_shape_keeps_the_order_and_scales_shape_and_deviation(factor, scale):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 300), nn.ReLU(), nn.Linear(300, 30))
    model[2].bias.data.zero_()
    before = [layer.weight.detach().clone() for layer in (model[0], model[2])]
    bias = model[0].bias.detach().clone()
    shapes = deep_shape_(model, factor, scale)
    for name, old, new in zip(("0.weight", "2.weight"), before, (model[0].weight, model[2].weight), strict=True):
        assert torch.equal(old.flatten().argsort(stable=True), new.flatten().argsort(stable=True))
        assert shapes[name][1] == pytest.approx(factor * shapes[name][0], abs=0.02)
        assert (new.std() / old.std()).item() == pytest.approx(scale, rel=0.01)
    assert torch.equal(model[0].bias, bias)


def test_layers_of_zeros_stay():
    model = nn.Linear(4, 4)
    nn.init.zeros_(model.weight)
    assert deep_shape_(model, 0.8, 1.0) == {}
    assert (model.weight == 0).all()


def test_deep_shape_reshapes_before_it_trains(fitted):
    fit, source, bench = fitted("deep_shape", "method.training.epochs=1")
    fit.model.load_state_dict(source)
    bench.announce(fit)
    shapes = fit.outcome["shapes"]
    assert set(shapes) == {"backbone.layers.1.weight", "backbone.layers.3.weight", "head.weight"}
    assert all(after < before for before, after in shapes.values())


def test_a_smaller_shape_of_the_same_variance_takes_fewer_bits():
    """The published reason for it: 20,000 Gaussian weights in steps of a quarter of their deviation."""
    torch.manual_seed(0)
    values = torch.randn(20_000)
    bits = []
    for weights in (values, reshaped(values, 0.6, variance=1.0)):
        _, ranks = ranked((4 * weights).round().int().numpy())
        bits.append(8 * len(encode(ranks)) / len(weights))
    assert bits[1] < 0.8 * bits[0]

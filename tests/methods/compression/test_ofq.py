"""OFQ: its grids against their definitions, what annealing leaves alone, queries and keys as one matrix, the file."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fisherexp.methods.compression.learned_grids import LSQ, ShiftedLSQ, StatsQ, frozen
from fisherexp.methods.compression.ofq import OFQ
from fisherexp.methods.compression.oscillation import Oscillation
from fisherexp.methods.compression.quantized_file import loaded, pack_bits, unpack_bits
from fisherexp.methods.compression.quantized_vit import ProductAttention, attentions
from fisherexp.methods.recipe import Recipe
from fisherexp.models.classifier import Classifier
from fisherexp.models.mlp import MLP
from fisherexp.models.vit import Attention, ViT

QUERY = "backbone.blocks.0.attention.query.weight"
torch.manual_seed(0)
WEIGHT = torch.randn(6, 40)


def method(**options) -> OFQ:
    torch.manual_seed(0)
    model = Classifier(ViT(patch=2, dim=8, depth=1, heads=2, input_shape=(1, 4, 4)), 8, 3)
    given = {"weight_bits": 3, "activation_bits": 4, "weights": "statsq", "qk": "product", "distillation": 0.5}
    given |= {"annealing_epochs": 1, "annealing_lr": 1e-3, "band": 0.2}
    return OFQ(model, **(given | options), training=Recipe(epochs=1))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_stats_q_has_as_many_levels_as_bits_allow_and_scales_with_the_weights(bits):
    grid = StatsQ(bits)
    found = grid(WEIGHT)
    assert max(len(row.unique()) for row in found) <= 2**bits
    assert (found != 0).all()
    torch.testing.assert_close(grid(8 * WEIGHT), 8 * found, rtol=0, atol=0)
    scale, n = 2 * WEIGHT.abs().mean(1, keepdim=True), 2 ** (bits - 1)
    expected = scale * (((WEIGHT / scale).clamp(-1, 1 - 1e-6) * n - 0.5).round() + 0.5) / n
    torch.testing.assert_close(found, expected)


def test_two_bits_are_quarters_of_the_scale_and_one_bit_is_refused():
    scale = 2 * WEIGHT.abs().mean(1, keepdim=True)
    assert set((4 * StatsQ(2)(WEIGHT) / scale).round(decimals=4).unique().tolist()) == {-3, -1, 1, 3}
    with pytest.raises(ValueError, match="at least 2 bits"):
        StatsQ(1)


def test_gradients_pass_stats_q_as_they_came_and_no_scale_has_any():
    weight, gradient = WEIGHT.clone().requires_grad_(), torch.randn(6, 40)
    StatsQ(2)(weight).backward(gradient)
    assert torch.equal(weight.grad, gradient)


def test_gradients_of_lsq_are_those_of_its_definition():
    """∂ŵ/∂unit = round(z) - z inside, the bound outside; times 1/√((n - 1) · numbers); ŵ passes inside only."""
    grid, weight, gradient = LSQ(3, 6, dim=0), WEIGHT.clone().requires_grad_(), torch.randn(6, 40)
    grid(weight).backward(gradient)
    unit = 2 * WEIGHT.abs().mean(1, keepdim=True) / 3**0.5
    torch.testing.assert_close(grid.unit(WEIGHT), unit)
    z = WEIGHT / unit
    inside = (z >= -4) & (z <= 3)
    slope = torch.where(inside, z.round() - z, z.clamp(-4, 3))
    torch.testing.assert_close(grid.step.grad, (gradient * slope).sum(1) / (3 * 40) ** 0.5)
    torch.testing.assert_close(weight.grad, gradient * inside)
    assert not inside.all()


def test_shifts_of_activations_act_before_and_behind():
    grid = ShiftedLSQ(4, 5)
    x = torch.randn(3, 7, 5)
    plain = grid(x)
    with torch.no_grad():
        grid.before.fill_(0.3)
        grid.after.fill_(-2.0)
    torch.testing.assert_close(grid(x - 0.3), plain - 2.0)
    assert max(len(plain[..., c].unique()) for c in range(5)) <= 16


@pytest.mark.parametrize("grid", [StatsQ(2), StatsQ(3), LSQ(3, 6, dim=0)])
def test_frozen_are_those_far_from_boundaries_between_codes_that_there_are(grid):
    position = grid.position(WEIGHT)
    mask = frozen(position, 0.05)
    codes = position.round()
    nudged = [(position - 0.05).round(), (position + 0.05).round()]
    near = (nudged[0] != codes) | (nudged[1] != codes)
    inner = near & (nudged[0] >= codes.min()) & (nudged[1] <= codes.max())
    assert torch.equal(~mask, inner)
    assert 0 < (~mask).sum() < mask.sum()
    assert frozen(position, 0.5).sum() < mask.sum()


@pytest.mark.parametrize("weights", ["statsq", "lsq"])
def test_annealing_leaves_confident_weights_bit_equal_under_momentum_and_decay(weights):
    anneal = method(weights=weights)
    anneal.source_loaded()
    anneal.annealed_from = 0
    optimizer = torch.optim.AdamW(anneal.model.parameters(), 0.01, weight_decay=0.5)
    before: dict[str, torch.Tensor] = {}

    def closure():
        optimizer.zero_grad()
        loss = anneal.model(torch.rand(5, 1, 4, 4)).square().sum()
        loss.backward()
        before.update({name: parameter.detach().clone() for name, parameter in anneal.model.named_parameters()})
        anneal.on_before_optimizer_step(optimizer)
        return loss

    for _ in range(3):  # the first two fill the moments
        anneal.optimizer_step(0, 0, optimizer, closure)
    names = {id(parameter): name for name, parameter in anneal.model.named_parameters()}
    assert len(anneal.still) == 4  # value, out, and both of the MLP; not what makes the product
    for weight, mask, _ in anneal.still:
        stood = weight == before[names[id(weight)]]
        assert torch.equal(stood, mask)
        assert 0 < mask.sum() < mask.numel()
    assert (anneal.layers["backbone.blocks.0.attention"].query.weight != before[QUERY]).all()


def test_queries_and_keys_as_one_matrix_are_what_they_were_without_biases():
    attention = Attention(8, 2).double()
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    query, key = (layer(x) - layer.bias for layer in (attention.query, attention.key))
    expected = attention._split(query) @ attention._split(key).mT / 2
    exact = nn.Identity()
    ProductAttention.of(attention, exact, exact, exact)
    torch.testing.assert_close(attention.logits(x), expected)
    assert attention.matrix().shape == (16, 8)


def test_oscillation_counts_returns_and_remembers_a_direction_through_rest():
    codes = torch.tensor([0.0, 0.0, 0.0])
    watched = Oscillation(codes)
    for step in ([1, 1, 0], [1, 2, 0], [0, 3, 0], [1, 3, 1]):
        watched.update(torch.tensor(step, dtype=torch.float32))
    assert (int(watched.reversals), int(watched.changes), int(watched.steps)) == (2, 7, 4)
    torch.testing.assert_close(watched.frequency, torch.tensor([0.01 * 0.99 + 0.01, 0, 0]))
    watched.restart()
    assert int(watched.reversals) == 0
    assert watched.direction[0] == 1


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_packed_integers_come_back_and_take_their_bits(bits):
    numbers = np.random.default_rng(0).integers(0, 2**bits, 1001)
    block = pack_bits(numbers, bits)
    assert len(block) == -(-1001 * bits // 8)
    assert unpack_bits(block, bits, 1001).tolist() == numbers.tolist()


@pytest.mark.parametrize(("weights", "qk"), [("statsq", "product"), ("lsq", "separate")])
def test_the_file_holds_what_the_layers_compute_with(weights, qk):
    trained = method(weights=weights, qk=qk)
    plain = copy.deepcopy(trained.model)
    trained.source_loaded()
    images = torch.rand(5, 1, 4, 4)
    trained.model(images)
    matrices, rest = loaded(trained.file())
    assert len(matrices) == (5 if qk == "product" else 6)
    for name, layer in trained.layers.items():
        assert torch.equal(matrices[name], layer.weight_grid(layer.matrix()).detach())
    assert torch.equal(rest["head.weight"], plain.head.weight)
    assert ("backbone.blocks.0.attention.query.bias" in rest) == (qk == "separate")
    assert trained.model.state_dict().keys() == plain.state_dict().keys()
    assert not torch.allclose(trained.model(images), plain(images))


def test_networks_without_attention_are_refused_in_one_line():
    with pytest.raises(ValueError, match="nearest: model=small_vit"):
        attentions(MLP([4], input_shape=(3,)))

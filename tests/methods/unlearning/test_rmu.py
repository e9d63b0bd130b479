"""RMU: both distances against a loop, the control vector, which layer and parameters are meant."""

import re

import pytest
import torch
from tiny_tokens import FORGET, TokenNet, gradients, taught, token_batch

from fisherexp.methods.unlearning.rmu import RMU, control_vector
from fisherexp.seeds import generator

BATCH = token_batch()
GIVEN = {"layer": "^layer$", "coefficient": 2.0, "trained": None, "forget_weight": 0.7, "retain_weight": 0.4}
TRAINING = {"epochs": 1, "lr": 1e-2, "weight_decay": 0.0}


def rmu(**options) -> RMU:
    return taught(RMU(TokenNet(), **GIVEN | options, **TRAINING), 1)


def states(model, tokens, layer):
    embedded = model.embed(tokens)
    return embedded if layer == "^embed$" else model.layer(embedded)


@pytest.mark.parametrize(
    "options",
    [{}, {"coefficient": 20.0}, {"layer": "^embed$"}, {"forget_weight": 0.0}, {"retain_weight": 0.0}],
    ids=str,
)
def test_gradient_is_that_of_the_definition(options):
    given = GIVEN | options
    method, plain, source = rmu(**options), TokenNet(), TokenNet(1)
    width = 4 if given["layer"] == "^embed$" else 5
    u = torch.rand(width, generator=generator("rmu", 0))
    control = (given["coefficient"] * u / u.square().sum().sqrt()).double()
    means: dict[bool, list] = {True: [], False: []}
    for tokens, targets, forget in zip(BATCH.inputs, BATCH.targets, FORGET.tolist(), strict=True):
        now, before = (states(net, tokens, given["layer"]) for net in (plain, source))
        wanted = [control] * len(tokens) if forget else before.detach()
        each = [(now[t] - wanted[t]).square().sum() / width for t, y in enumerate(targets.tolist()) if y >= 0]
        means[forget].append(sum(each) / len(each))
    forgotten, retained = (sum(means[part]) / len(means[part]) for part in (True, False))
    expected = given["forget_weight"] * forgotten + given["retain_weight"] * retained
    found = method.loss(BATCH)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, method.model), gradients(expected, plain))


def test_the_control_vector_has_its_length_and_is_that_of_the_seed():
    one, again, other = (control_vector(9, 6.5, generator("rmu", seed)) for seed in (0, 0, 1))
    assert one.norm().item() == pytest.approx(6.5)
    assert (one >= 0).all()
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("trained", "moved"),
    [(None, {"embed.weight", "layer.weight", "layer.bias"}), ("layer", {"layer.weight", "layer.bias"})],
)
def test_what_is_trained_lies_below_the_layer_and_has_a_name_that_is_meant(trained, moved):
    method = rmu(trained=trained)
    optimizer = method.configure_optimizers()["optimizer"]
    before = {name: p.detach().clone() for name, p in method.model.named_parameters()}
    method.loss(BATCH).backward()
    optimizer.step()
    assert {name for name, p in method.model.named_parameters() if not torch.equal(p, before[name])} == moved


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": "lay|embed"}, "method.layer=lay|embed finds 2 layers instead of one: embed, layer"),
        ({"layer": "none"}, "finds 0 layers"),
        ({"trained": "none"}, "method.trained=none finds no parameter: embed.weight"),
    ],
)
def test_an_expression_that_finds_nothing_is_one_line(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        rmu(**options)

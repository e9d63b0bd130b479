"""The character GPT: what its attention may see, what its head shares, and its per-sequence Fisher."""

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from fisherexp.curvature import fisher_diagonal
from fisherexp.models.char_gpt import CharGPT
from fisherexp.models.classifier import Classifier


def small(tied: bool = True) -> Classifier:
    torch.manual_seed(0)
    backbone = CharGPT(dim=8, depth=2, heads=2, tied=tied, input_shape=(6,), vocabulary=5)
    return Classifier(backbone, backbone.num_features, 5).double().eval()


def test_the_contract_holds_for_every_position():
    model, tokens = small(), torch.randint(0, 5, (3, 6))
    features = model.features(tokens)
    assert features.shape == (3, 6, 8)
    assert torch.equal(model(tokens), model.head(features))
    assert model(tokens).shape == (3, 6, 5)
    # a shorter sequence is the beginning of a longer one
    assert torch.allclose(model(tokens[:, :4]), model(tokens)[:, :4])


def test_a_position_sees_itself_and_what_was_before():
    model, tokens = small(), torch.randint(0, 5, (1, 6))
    changed = tokens.clone()
    changed[0, 3] = (changed[0, 3] + 1) % 5
    moved = (model(tokens) != model(changed)).any(-1)[0]
    assert moved.tolist() == [False, False, False, True, True, True]


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_the_embedding_where_tied(tied):
    model = small(tied)
    assert (model.head.weight is model.backbone.tokens.weight) == tied
    width, vocabulary, longest = 8, 5, 6
    block = 12 * width**2 + 13 * width  # attention, MLP four times as wide, two norms
    expected = (vocabulary + longest) * width + 2 * block + 2 * width
    expected += 0 if tied else vocabulary * (width + 1)
    assert sum(p.numel() for p in model.parameters()) == expected
    state = {name: torch.randn_like(value) for name, value in model.backbone.state_dict().items()}
    model.backbone.load_state_dict(state)
    assert (model.head.weight == model.backbone.tokens.weight).all() == tied


@pytest.mark.parametrize("tied", [True, False])
def test_the_fisher_of_sequences_is_autograds(tied):
    model = small(tied)
    tokens, following = torch.randint(0, 5, (4, 6)), torch.randint(0, 5, (4, 6))
    fisher = fisher_diagonal(model, [(tokens, following)], loss="sequence")
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for one, labels in zip(tokens, following, strict=True):
        loss = F.cross_entropy(functional_call(model, parameters, one[None])[0], labels)
        for name, gradient in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
            total[name] += gradient.square() / 4
    assert set(dict(fisher.items())) == set(parameters)
    for name, values in fisher.items():
        torch.testing.assert_close(values, total[name], rtol=1e-9, atol=1e-15)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads=3 does not divide dim=8"):
        CharGPT(dim=8, heads=3, input_shape=(6,), vocabulary=5)


def test_weights_begin_small_enough_for_an_even_guess():
    torch.manual_seed(0)
    backbone = CharGPT(input_shape=(64,), vocabulary=65)
    model = Classifier(backbone, backbone.num_features, 65)
    tokens = torch.randint(0, 65, (8, 64))
    loss = F.cross_entropy(model(tokens).flatten(0, 1), torch.randint(0, 65, (512,)))
    assert loss.item() == pytest.approx(torch.tensor(65.0).log().item(), abs=0.15)

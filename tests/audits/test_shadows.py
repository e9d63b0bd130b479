"""The game: who may be picked, and which shadow sees whom."""

import pytest
import torch

from fisherexp.audits.shadows import Game, halves
from fisherexp.data.digits import Digits
from fisherexp.metrics.confidence import logit_confidence
from fisherexp.scenarios.forgetting import ClassForgetting, RandomForgetting

SHADOWS = 6


@pytest.fixture(scope="module")
def data():
    return Digits().load()


@pytest.fixture(params=[ClassForgetting([1, 8]), RandomForgetting(0.1)], ids=["class", "random"])
def setting(request, data):
    return request.param.setting(data, seed=3)


def test_every_sample_is_in_exactly_half_of_the_shadows():
    seen = halves(8, 500, seed=0)
    assert (seen.sum(0) == 4).all()
    assert torch.equal(seen, halves(8, 500, seed=0))
    assert not torch.equal(seen, halves(8, 500, seed=1))
    # Independent of each other: two shadows share 3/7 of what one of them sees.
    assert (seen[0] & seen[1]).float().mean() == pytest.approx(0.5 * 3 / 7, abs=0.07)


@pytest.mark.parametrize("population", ["online", "unlearned"])
def test_forgotten_samples_and_negatives_are_treated_alike(setting, population):
    game = Game(setting, population, SHADOWS, seed=0)
    forget, alike = setting.parts["forget"], setting.parts[game.negatives]
    assert game.positives == len(forget)
    assert game.member.shape == (SHADOWS, len(forget) + int(game.negative.sum()))
    assert (game.member.sum(0) == SHADOWS // 2).all()
    if "test_forget" in setting.evaluated:
        assert game.negatives == "test_forget"
        assert set(alike.targets.tolist()) == set(forget.targets.tolist())
    limited = population == "unlearned" and len(alike) > len(forget)
    assert int(game.negative.sum()) == (len(forget) if limited else len(alike))


@pytest.mark.parametrize("population", ["online", "unlearned"])
def test_masks_are_those_of_the_samples_a_shadow_is_given(setting, population):
    game = Game(setting, population, SHADOWS, seed=0)
    picked = torch.cat([setting.parts["forget"].inputs, setting.parts[game.negatives].inputs[game.negative]])
    retained = {image.numpy().tobytes() for image in setting.parts["retain"].inputs}
    for number in (0, SHADOWS - 1):
        parts = game.shadow(number).parts
        names = ("train", "retain", "forget")
        train, retain, forget = ([image.numpy().tobytes() for image in parts[name].inputs] for name in names)
        saw = {*train}
        assert [image.numpy().tobytes() in saw for image in picked] == game.member[number].tolist()
        assert sorted(train) == sorted(retain + forget)
        if population == "online":
            assert forget == []
            assert len(train) == pytest.approx(len(game.seen[0]) / 2, rel=0.1)
        else:
            assert {*retain} == retained  # all of them, and nobody else
            assert len(forget) == int(game.member[number].sum())


def test_ordinary_shadows_are_the_same_whatever_is_forgotten(data):
    one, other = (scenario.setting(data, 3) for scenario in (ClassForgetting([1]), RandomForgetting(0.1)))
    games = [Game(setting, "online", SHADOWS, seed=0) for setting in (one, other)]
    assert torch.equal(games[0].seen, games[1].seen)
    assert games[0].shadow(2).checksum("train") == games[1].shadow(2).checksum("train")


@pytest.mark.parametrize("population", ["online", "unlearned"])
def test_confidence_is_that_of_forgotten_samples_then_of_negatives(setting, population):
    game = Game(setting, population, SHADOWS, seed=0)
    logits = {part: torch.randn(len(setting.parts[part]), 10) for part in ("forget", game.negatives)}
    found = game.confidence(logits)
    expected = logit_confidence(logits[game.negatives], setting.parts[game.negatives].targets)[game.negative]
    assert torch.equal(found[: game.positives], logit_confidence(logits["forget"], setting.parts["forget"].targets))
    assert torch.equal(found[game.positives :], expected)
    with pytest.raises(ValueError, match="needs whole test parts"):
        game.confidence({part: values[:5] for part, values in logits.items()})

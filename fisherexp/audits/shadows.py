"""Shadow models: what confidence in a sample looks like in models that saw it and in models that did not.

The attack is a game. Somebody picks a forgotten training sample or one of its "negatives": test samples like it,
that is of the forgotten classes, or any of them where no test sample counts as forgotten. (Of wrong labels there are
none alike; their negatives have right ones.) The attacker sees the unlearned model's confidence in the sample and
says which of the two it was. False positive rates are thus over negatives under the same model, and the ideal score
is chance.

Two populations of shadow models to calibrate the attacker with. Exactly half of them see a sample that may be picked,
negatives as well as forgotten ones, so that both kinds are evaluated alike.

online      Source models, each trained on a random half of all training and test samples. They depend on the run's
            seed, not on what is forgotten or how: all methods and requests share them. "In" means saw the sample and
            never unlearned: the attacker asks whether the sample is still known (LiRA, arXiv 2112.03570).
unlearned   U-LiRA (Hayes et al., arXiv 2403.01218): each shadow is trained on all retained samples and on half of
            those that may be picked, and then forgets the latter with the run's own method. "In" means saw the sample
            and unlearned it, "out" never saw it and unlearned others: the very two hypotheses, at the price of
            unlearning as often as there are shadows. As many negatives take part as there are forgotten samples, at
            most, so that a shadow's request to forget is about as large as the run's.
"""

import dataclasses
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.data.domains import pooled
from fisherexp.metrics.confidence import logit_confidence
from fisherexp.metrics.predictions import Predictions
from fisherexp.runs.finished import finished, finished_key
from fisherexp.runs.workbench import Workbench
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import derive, generator

Population = Literal["online", "unlearned"]


def halves(shadows: int, samples: int, seed: int) -> Tensor:
    """Mask (shadows, samples) of what each shadow sees: every sample is in exactly half of them, at random."""
    draws = torch.rand(shadows, samples, generator=generator("shadows", seed))
    return draws.argsort(0).argsort(0) < shadows // 2


class Game:
    """Who may be picked, and which shadow sees what. Masks of training samples come before those of test samples.

    negatives: name of the part that negatives are taken from. negative: mask over it of those that take part.
    seen, unlearned: masks (shadows, n_train + n_test) of what a shadow is trained on and of what it then forgets.
    member: mask (shadows, n) of `seen` for those that may be picked, the `positives` forgotten ones first.
    """

    def __init__(self, setting: Setting, population: Population, shadows: int, seed: int) -> None:
        if setting.requests and population == "unlearned":
            raise ValueError(
                "U-LiRA's shadows answer one request, this scenario has several: audit=lira (population online)"
            )
        self.setting = setting
        forgotten, test = setting.forgotten.cpu(), len(setting.parts["test"])
        self.positives = int(forgotten.sum())
        alike = torch.zeros(test, dtype=torch.bool) if setting.test_forgotten is None else setting.test_forgotten.cpu()
        self.negatives = "test_forget" if alike.any() else "test_retain"
        candidates = torch.nonzero(alike if alike.any() else ~alike).flatten()
        self.negative = torch.ones(len(candidates), dtype=torch.bool)
        if population == "unlearned":
            order = torch.randperm(len(candidates), generator=generator("negatives", seed))
            self.negative[order[self.positives :]] = False
        picked = torch.zeros(test, dtype=torch.bool)
        picked[candidates[self.negative]] = True
        played = torch.cat([forgotten, picked])
        self.seen = halves(shadows, len(played), seed)
        self.unlearned = torch.zeros_like(self.seen)
        if population == "unlearned":
            self.unlearned = self.seen & played
            self.seen = self.unlearned | torch.cat([~forgotten, torch.zeros_like(picked)])
        self.member = self.seen[:, played]

    def confidence(self, predictions: dict[str, Tensor]) -> Tensor:
        """Logit-scaled confidence (n,) in the samples that may be picked, from logits of 'forget' and the negatives.

        Raises ValueError when only a part of the samples was predicted.
        """
        found = []
        for part, chosen in (("forget", slice(None)), (self.negatives, self.negative)):
            labels = self.setting.parts[part].targets.cpu()
            if len(labels) != len(predictions[part]):
                raise ValueError("LiRA needs whole test parts, and the trainer limits batches: set audit.shadows=0")
            found.append(logit_confidence(predictions[part], labels)[chosen])
        return torch.cat(found)

    def shadow(self, number: int) -> Setting:
        """The data of one shadow: 'train', of which it forgets 'forget' and retains 'retain'."""
        train, test = (self.setting.parts[part] for part in ("train", "test"))
        pool = pooled([train, test])
        images, forgotten = pool.subset(_where(self.seen[number])), self.unlearned[number][self.seen[number]]
        parts = {
            "train": images,
            "retain": images.subset(_where(~forgotten)),
            "forget": images.subset(_where(forgotten)),
        }
        return dataclasses.replace(self.setting, parts=self.setting.parts | parts, forgotten=forgotten, requests=())


def shadow_confidence(bench: Workbench, game: Game, population: Population) -> Tensor:
    """Confidence (shadows, n) of every shadow in the samples that may be picked; see `Game.confidence`.

    They are trained like the source. They and their predictions are artefacts.
    """
    evaluated = ("forget", game.negatives)
    part = dataclasses.replace(bench.setting, evaluated=evaluated, evaluation=partial(Predictions, evaluated))
    evaluate = bench.variation("", bench.seed, part)
    return torch.stack(
        [game.confidence(_predictions(bench, evaluate, game, number, population)) for number in range(len(game.seen))]
    )


def _predictions(
    bench: Workbench, evaluate: Workbench, game: Game, number: int, population: Population
) -> dict[str, Tensor]:
    name = f"shadow {number + 1}/{len(game.seen)}"
    shadow = bench.variation(name, derive("shadow", bench.seed, number), game.shadow(number))
    if population == "online":
        weights = shadow.reference("source")
        return evaluate.evaluation(name, weights.key, lambda scratch: weights.tensors).tensors

    def unlearned(scratch: Any) -> dict[str, Tensor]:
        return finished(shadow, scratch)[0].model.state_dict()

    key = finished_key(shadow) | {"unlearned": bench.code_of(_predictions)}
    return evaluate.evaluation(name, key, unlearned).tensors


def _where(mask: Tensor) -> Tensor:
    return torch.nonzero(mask).flatten()

"""Evaluation under attack: what is left of the accuracy where every pixel may be changed a little."""

from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import torch

from fisherexp.config.types import Count, Positive, Probability
from fisherexp.data.datamodule import LabeledData
from fisherexp.metrics.robustness import RobustnessMetrics
from fisherexp.scenarios.plain import Plain
from fisherexp.scenarios.setting import Setting, Store
from fisherexp.seeds import generator


class Adversarial(Plain):
    """radius: how far an attacker may change a pixel, of 0 … 1. steps: of PGD. auto_attack: evaluate by AutoAttack as
    well, which takes longer and the package pyautoattack. minority: share of the training samples that is kept of the
    first half of the classes; 1 keeps all. Test data stay as they are.
    """

    paper = "Madry et al., ICLR 2018, arXiv 1706.06083"
    name = "adversarial"
    kind = "adversarial"
    reads = ("images",)
    requires = ("images", "class_labels")

    def __init__(
        self, radius: Positive = 0.1, steps: Count = 20, auto_attack: bool = False, minority: Probability = 1.0
    ) -> None:
        if auto_attack and find_spec("pyautoattack") is None:
            raise ModuleNotFoundError("scenario.auto_attack needs pyautoattack: pip install 'fisherexp[attacks]'")
        self.radius, self.steps, self.auto_attack, self.minority = radius, steps, auto_attack, minority

    def setting(self, data: LabeledData, seed: int, store: Store | None = None) -> Setting:
        """Parts as of the plain data. Raises ValueError where nothing is left of a class, and for AutoAttack on fewer
        than four classes, where one of its losses is not defined."""
        if self.auto_attack and data.num_classes < 4:
            raise ValueError(
                f"scenario.auto_attack needs four classes, these data have {data.num_classes}; set it false"
            )
        plain = super().setting(data, seed, store)
        evaluation = partial(
            RobustnessMetrics, plain.evaluated, data.num_classes, self.radius, self.steps, self.auto_attack
        )
        kept = torch.ones(len(data.train), dtype=torch.bool)
        for label in range(data.num_classes // 2 if self.minority < 1 else 0):
            places = (data.train.targets == label).nonzero().flatten()
            order = places[torch.randperm(len(places), generator=generator("minority", seed, label))]
            kept[order[round(self.minority * len(places)) :]] = False
            if len(places) and not kept[places].any():
                raise ValueError(
                    f"scenario.minority={self.minority} leaves none of {len(places)} samples of class {label}"
                )
        parts = plain.parts if kept.all() else plain.parts | {"train": data.train.subset(kept.nonzero().flatten())}
        return replace(plain, parts=parts, evaluation=evaluation, altered=self.minority < 1)

"""Accuracy on images that an attacker has changed, and on the classes where it is least."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.metrics.attacks import pgd, uniform_start
from fisherexp.metrics.classification import ClassificationMetrics

TAIL = 0.3  # share of the classes, rounded to whole ones


class RobustnessMetrics(ClassificationMetrics):
    """Besides accuracy and NLL of each part, in %: `<name>_robust`, accuracy under PGD; `<name>_tail` and
    `<name>_worst`, the same on the 30 % of the classes, and the class, where it is lowest, each class counted alike;
    with auto_attack also `<name>_auto`, accuracy under AutoAttack (Croce, Hein, ICML 2020, arXiv 2003.01690).

    radius: how far a pixel in [0, 1] may be changed. steps: of PGD, each of 2.5 · radius / steps, from a random start
    that is the same in every evaluation.
    """

    def __init__(
        self, names: tuple[str, ...], num_classes: int, radius: float, steps: int, auto_attack: bool = False
    ) -> None:
        super().__init__(names)
        self.radius, self.steps, self.auto_attack = radius, steps, auto_attack
        figures = {"robust": "robust\n%", "tail": "tail\n%", "worst": "worst\nclass %"}
        figures |= {"auto": "AutoAttack\n%"} if auto_attack else {}
        added = {f"{name}_{figure}": f"{name} {words}" for name in names for figure, words in figures.items()}
        self.headings = self.headings | added
        self.better = self.better | dict.fromkeys(added, "higher")
        for state in ("samples", "robust", "auto"):
            self.add_state(state, torch.zeros(len(names), num_classes, dtype=torch.float64), dist_reduce_fx="sum")

    def ask(self, part: int, model: nn.Module, batch: Any) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            images, labels = batch.inputs.clone(), batch.targets.clone()
            images = images.float() / 255 if images.dtype == torch.uint8 else images
            self._count(self.samples[part], torch.ones_like(labels, dtype=torch.bool), labels)
            self._count(self.robust[part], _right(model, self._attacked(model, images, labels), labels), labels)
            if self.auto_attack:
                self._count(self.auto[part], _right(model, auto_attacked(model, images, labels, self), labels), labels)

    def compute(self) -> dict[str, float]:
        found = super().compute()
        for part, name in enumerate(self.names):
            seen = self.samples[part] > 0
            by_class = 100 * self.robust[part][seen] / self.samples[part][seen]
            lowest = by_class.sort().values[: max(1, round(TAIL * len(by_class)))]
            found[f"{name}_robust"] = 100 * (self.robust[part].sum() / self.samples[part].sum()).item()
            found[f"{name}_tail"], found[f"{name}_worst"] = lowest.mean().item(), lowest[0].item()
            if self.auto_attack:
                found[f"{name}_auto"] = 100 * (self.auto[part].sum() / self.samples[part].sum()).item()
        return found

    def _attacked(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        def losses(changed: Tensor) -> Tensor:
            return F.cross_entropy(model(changed), labels, reduction="none")

        start = uniform_start(images, self.radius, torch.Generator().manual_seed(0))
        return pgd(losses, images, start, self.radius, 2.5 * self.radius / self.steps, self.steps)

    @staticmethod
    def _count(counts: Tensor, which: Tensor, labels: Tensor) -> None:
        counts += torch.bincount(labels[which], minlength=len(counts))


def _right(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Mask (B,) of the images whose class a model finds."""
    with torch.no_grad():
        return model(images).argmax(1) == labels


def auto_attacked(model: nn.Module, images: Tensor, labels: Tensor, metrics: RobustnessMetrics) -> Tensor:
    """Images in [0, 1] as the authors' AutoAttack changes them, for the radius and classes of `metrics`."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(model, eps=metrics.radius, device=images.device, seed=0)
    # Nine are the other classes of CIFAR-10, its default.
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, metrics.samples.shape[1] - 1)
    return attack.run_standard_evaluation(images, labels)[0]

"""Domain generalization: train on some domains, be evaluated on one that no training saw.

Protocol of DomainBed (Gulrajani, Lopez-Paz, ICLR 2021, arXiv 2007.01434): each domain is split once, at random, into a
part to use and a part held out; one domain is the target. Data without domains of their own are given some:

    rotation: each stripe of the data is turned by an angle (Ghifary et al. 2015, arXiv 1508.07680).
    patch: a bright patch sits left or right at the top of the image, and in domain e agrees with the parity of the
        class with probability `agreement[e]`: a correlation that shifts between domains.
"""

from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch

from fisherexp.config.types import AtLeastOne, Probability
from fisherexp.data.domains import DomainData, pooled
from fisherexp.data.image_data import ImageData
from fisherexp.data.rotated_mnist import turned
from fisherexp.data.tensors import TensorSet
from fisherexp.metrics.domains import DomainMetrics
from fisherexp.scenarios.setting import Setting, Store
from fisherexp.seeds import generator


class Domains:
    """target: the domain to generalize to; null for the last one.
    leave_out: a further domain that is not trained on, only evaluated: for leave-one-domain-out selection. The target
        itself leaves out no further one, so that a sweep over all domains has every choice of it and the whole run.
    holdout: share of every domain that is held out of training; 0 to evaluate training domains on what they trained on.
    label_shift: how far the training domains differ in their classes: each keeps all samples of the classes whose
        number is its own modulo the number of training domains, and the share 1 - label_shift of the others; what is
        held out of them is of the same classes.
    made_by, angles (degrees), agreement: domains of data that have none, one for each angle or agreement.
    """

    paper = "Gulrajani, Lopez-Paz, ICLR 2021, arXiv 2007.01434"
    kind = "domains"
    requires = ("images", "class_labels")
    references = {}

    def __init__(
        self,
        target: str | None = None,
        leave_out: str | None = None,
        holdout: Probability = 0.2,
        label_shift: Probability = 0.0,
        made_by: Literal["rotation", "patch"] = "rotation",
        angles: AtLeastOne[float] = (0.0, 30.0, 60.0),
        agreement: AtLeastOne[Probability] = (0.8, 0.9, 0.1),
    ) -> None:
        self.target, self.leave_out, self.holdout, self.label_shift = target, leave_out, holdout, label_shift
        self.made_by, self.angles, self.agreement = made_by, angles, agreement

    def setting(self, data: ImageData, seed: int, store: Store | None = None) -> Setting:
        """Parts: train_<domain> and held_out_<domain> of each training domain; target, target_held_out; left_out;
        the data's variants of the target by their names. 'train' pools the training domains, 'domains' does so with
        the tag 'domain', the number of the domain a sample is from; 'test' is the whole target.

        Raises ValueError for names of no domain and for domains too small or too few to be cut so.
        """
        domains = self._domains(data, seed)
        only_evaluated = data.only_evaluated if isinstance(data, DomainData) else ()
        variants = {name: domains.pop(name) for name in only_evaluated if name in domains}
        target = list(domains)[-1] if self.target is None else self.target
        for option, name in (("target", target), ("leave_out", self.leave_out)):
            if name is not None and name not in domains:
                raise ValueError(f"scenario.{option}={name} is no domain of these data; there are {', '.join(domains)}")
        left_out = None if self.leave_out == target else self.leave_out
        names = [name for name in domains if name not in (target, left_out)]
        if not names:
            raise ValueError(f"with target {target} no domain of {', '.join(domains)} is left to train on")
        for number, name in enumerate(names):
            domains[name] = self._shifted(number, len(names), name, domains[name], seed)
        kept, out = {}, {}
        for name, images in domains.items():
            kept[name], out[name] = self._split(name, images, seed)
        train = pooled([kept[name] for name in names])
        domain = torch.arange(len(names)).repeat_interleave(torch.tensor([len(kept[name]) for name in names]))
        parts = {"train": train, "test": domains[target], "domains": train.tagged(domain=domain)}
        evaluated = {f"train_{name}": kept[name] for name in names}
        evaluated |= {f"held_out_{name}": out[name] for name in names}
        evaluated |= {"target": kept[target], "target_held_out": out[target]}
        if left_out is not None:
            evaluated["left_out"] = kept[left_out]
        evaluated = {name: images for name, images in (evaluated | variants).items() if len(images)}
        altered = self.label_shift > 0 or left_out is not None or target != list(domains)[-1]
        altered |= isinstance(data, DomainData) and self.holdout != data.published_holdout
        evaluation = partial(DomainMetrics, tuple(evaluated))
        return Setting(data, parts | evaluated, tuple(evaluated), evaluation, seed, altered=altered)

    def _domains(self, data: ImageData, seed: int) -> dict[str, Any]:
        if isinstance(data, DomainData):
            return data.domains(seed)
        everything = pooled([data.train, data.test])
        if not isinstance(everything, TensorSet):
            raise ValueError("domains can be made of images in memory only; set data.in_memory=true")
        rotation = self.made_by == "rotation"
        values = self.angles if rotation else self.agreement
        if len(set(values)) < len(values):
            raise ValueError(f"scenario.{'angles' if rotation else 'agreement'}={values}: domains must differ")
        order = torch.randperm(len(everything), generator=generator("stripes", seed))
        found = {}
        for number, value in enumerate(values):
            stripe = everything.subset(order[number :: len(values)].sort().values)
            if rotation:
                found[f"{value:g}"] = turned(stripe, value)
            else:
                found[f"a{100 * value:g}"] = patched(stripe, value, generator("patch", seed, number))
        return found

    def _split(self, name: str, images: Any, seed: int) -> tuple[Any, Any]:
        """What is used of a domain, what is held out."""
        order = torch.randperm(len(images), generator=generator("holdout", seed, name))
        held_out = round(self.holdout * len(images))
        if held_out == len(images):
            raise ValueError(f"scenario.holdout={self.holdout} leaves nothing of domain {name} ({len(images)} images)")
        return images.subset(order[held_out:].sort().values), images.subset(order[:held_out].sort().values)

    def _shifted(self, number: int, domains: int, name: str, images: Any, seed: int) -> Any:
        if not self.label_shift:
            return images
        keep = torch.rand(len(images), generator=generator("label_shift", seed, name)) >= self.label_shift
        keep |= images.targets % domains == number
        if not keep.any():
            raise ValueError(f"scenario.label_shift={self.label_shift} leaves nothing of domain {name}")
        return images.subset(keep.nonzero().flatten())


def patched(images: TensorSet, agreement: float, drawn: torch.Generator) -> TensorSet:
    """With a white patch, an eighth of the image high and wide, at the upper left for even classes and right for odd
    ones; on the other side with probability 1 - agreement."""
    agrees = torch.rand(len(images), generator=drawn) < agreement
    right = (images.targets % 2 == 1) == agrees
    height, width = (max(1, side // 8) for side in images.inputs.shape[-2:])
    marked_images = images.inputs.clone()
    marked_images[~right, :, :height, :width] = 255
    marked_images[right, :, :height, -width:] = 255
    return replace(images, inputs=marked_images)

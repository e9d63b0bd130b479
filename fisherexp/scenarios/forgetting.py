"""Requests to forget: which training samples are to go, and how it is evaluated that they have.

Protocols of Selective Synaptic Dampening (arXiv 2308.07707): a whole class, a class within a super-class, or a
random part of the training set; besides, classes one after the other, and samples with wrong labels (arXiv
2402.10098). Accuracy on retained data is always that of test samples. For classes, so is accuracy on forgotten
data; for single samples it is that of the forgotten training samples themselves, and the retrained oracle's value
is the goal, not zero. Samples without classes are told by their loss.
"""

import dataclasses
from functools import partial

import torch

from fisherexp.config.types import AtLeastOne, ClassLabel, Distinct, Probability, Size
from fisherexp.data.image_data import ImageData
from fisherexp.data.tensors import TensorSet
from fisherexp.metrics.forgetting import ForgettingMetrics
from fisherexp.metrics.unlearning import UnlearningMetrics
from fisherexp.scenarios.setting import Setting, Store
from fisherexp.seeds import derive, generator

EVALUATED = ("retain", "forget", "test_retain", "test_forget")


class ClassForgetting:
    """Forget all samples of the given classes (labels in 0 … num_classes - 1)."""

    paper = "Foster et al., AAAI 2024, arXiv 2308.07707"
    kind = "forgetting"
    requires = ("class_labels",)
    references = {"before": "source", "oracle": "oracle"}

    def __init__(self, classes: Distinct[ClassLabel]):
        self.classes = classes

    def setting(self, data: ImageData, seed: int, store: Store | None = None) -> Setting:
        """Parts: train = retain + forget, test = test_retain + test_forget.

        Raises ValueError when a class has no sample, and when no sample, or every sample, would be forgotten.
        """
        absent = [label for label in self.classes if not (data.train.targets == label).any()]
        if absent:
            there = sorted(data.train.targets.unique().tolist())
            known = f"{there[0]}…{there[-1]}" if len(there) == there[-1] - there[0] + 1 else ", ".join(map(str, there))
            reason = f"there is nothing to forget: no training sample has class {absent[0]}"
            raise ValueError(f"{reason}; set scenario.classes to some of {known}, scenario.classes=[{there[0]}] say")
        forgotten, test_forgotten = (of_classes(part.targets, self.classes) for part in (data.train, data.test))
        return forgetting(data, forgotten, test_forgotten, seed)


class SubclassForgetting:
    """Forget some of the classes that a super-class is made of (their labels before classes were merged).

    The other members of the super-class stay, so that a retrained model still knows part of what was forgotten.
    """

    paper = "Foster et al., AAAI 2024, arXiv 2308.07707"
    kind = "forgetting"
    requires = ("class_labels",)
    references = {"before": "source", "oracle": "oracle"}

    def __init__(self, classes: Distinct[Size]):
        self.classes = classes

    def setting(self, data: ImageData, seed: int, store: Store | None = None) -> Setting:
        """Parts as for a class. Raises ValueError where there are no super-classes, and as for a class."""
        if not data.fine_labels:
            known = "data=cifar20, data=digits_parity or data.superclasses=[[0,1],[2,3,4],…]"
            raise ValueError(f"subclass_forgetting needs data with super-classes: {known}")
        masks = (of_classes(data.fine_labels[split], self.classes) for split in ("train", "test"))
        return forgetting(data, *masks, seed)


class RandomForgetting:
    """Forget a random fraction of the training samples, drawn from the run's seed."""

    paper = "Foster et al., AAAI 2024, arXiv 2308.07707"
    kind = "forgetting"
    references = {"before": "source", "oracle": "oracle"}

    def __init__(self, fraction: Probability):
        self.fraction = fraction

    def setting(self, data: ImageData, seed: int, store: Store | None = None) -> Setting:
        """Parts as for a class; no test sample counts as forgotten.

        Raises ValueError when no sample, or every sample, would be forgotten.
        """
        forgotten = drawn(len(data.train), self.fraction, "random_forgetting", seed)
        return forgetting(data, forgotten, torch.zeros(len(data.test), dtype=torch.bool), seed)


class MislabeledForgetting:
    """Wrong labels for a random fraction of the training samples before the source is trained; then forget those.

    The forgotten part has its wrong labels: accuracy on it says how many of them are still believed. What counts
    is accuracy on test data, which the oracle, trained without those samples, shows to be within reach.
    """

    paper = "Schoepf et al., arXiv 2402.10098"
    kind = "forgetting"
    requires = ("class_labels",)
    references = {"before": "source", "oracle": "oracle"}

    def __init__(self, fraction: Probability):
        self.fraction = fraction

    def setting(self, data: ImageData, seed: int, store: Store | None = None) -> Setting:
        """Parts as for random samples; 'train' and 'forget' hold the wrong labels.

        Raises ValueError when no sample, or every sample, would be forgotten.
        """
        labels = data.train.targets
        wrong = drawn(len(labels), self.fraction, "mislabelled", seed)
        step = torch.randint(1, data.num_classes, labels.shape, generator=generator("wrong_labels", seed))
        train = dataclasses.replace(data.train, targets=torch.where(wrong, (labels + step) % data.num_classes, labels))
        return forgetting(data, wrong, torch.zeros(len(data.test), dtype=torch.bool), seed, train)


class SequentialForgetting:
    """Requests to forget classes that come one after the other, each answered from where the last one ended.

    A request finds the training data that the earlier ones left. What was computed of all data before the first
    of them (SSD's importance) is not computed again.
    """

    paper = "Foster et al., AAAI 2024, arXiv 2308.07707"
    kind = "forgetting"
    requires = ("class_labels",)
    references = {"before": "source", "oracle": "oracle"}

    def __init__(self, requests: AtLeastOne[AtLeastOne[ClassLabel]]):
        self.requests = requests

    def setting(self, data: ImageData, seed: int, store: Store | None = None) -> Setting:
        """Parts as for all classes of all requests at once; `requests` has a setting for each.

        Raises ValueError as for a class, and when a request asks for what is gone already.
        """
        every = [label for classes in self.requests for label in classes]
        again = sorted({label for label in every if every.count(label) > 1})
        if again:
            raise ValueError(f"scenario.requests asks more than once to forget class {again[0]}")
        overall = ClassForgetting(every).setting(data, seed)
        requests, train = [], data.train
        for number, classes in enumerate(self.requests):
            forgotten, test_forgotten = (of_classes(part.targets, classes) for part in (train, data.test))
            one = forgetting(
                data, forgotten, test_forgotten, derive("request", seed, number) if number else seed, train
            )
            requests.append(one)
            train = one.parts["retain"]
        return dataclasses.replace(overall, requests=tuple(requests))


def of_classes(labels: torch.Tensor, classes: list[int]) -> torch.Tensor:
    """Mask (n,) of the samples whose label is one of `classes`."""
    return torch.isin(labels, torch.tensor(classes, dtype=torch.int64))


def drawn(total: int, fraction: float, stream: str, seed: int) -> torch.Tensor:
    """Mask (total,) of a random share of samples, rounded to whole ones."""
    order = torch.randperm(total, generator=generator(stream, seed))
    mask = torch.zeros(total, dtype=torch.bool)
    mask[order[: round(fraction * total)]] = True
    return mask


def forgetting(
    data: ImageData,
    forgotten: torch.Tensor,
    test_forgotten: torch.Tensor,
    seed: int,
    train: TensorSet | None = None,
) -> Setting:
    """Cut train (by default that of the data) and test by boolean masks, shapes (n_train,) and (n_test,)."""
    train = data.train if train is None else train
    if not forgotten.any() or forgotten.all():
        what = "no training sample" if not forgotten.any() else "every training sample"
        raise ValueError(f"the scenario would forget {what} of {len(forgotten)}: nothing to compare")
    parts = {
        "train": train,
        "test": data.test,
        "retain": train.subset(torch.nonzero(~forgotten).flatten()),
        "forget": train.subset(torch.nonzero(forgotten).flatten()),
        "test_retain": data.test.subset(torch.nonzero(~test_forgotten).flatten()),
        "test_forget": data.test.subset(torch.nonzero(test_forgotten).flatten()),
    }
    evaluated = tuple(name for name in EVALUATED if len(parts[name]))
    masks = {"forgotten": forgotten, "test_forgotten": test_forgotten}
    by_class = "class_labels" in data.provides
    evaluation = (
        UnlearningMetrics if by_class else partial(ForgettingMetrics, sample_losses=data.objective.sample_losses)
    )
    return Setting(data, parts, evaluated, partial(evaluation, evaluated), seed, **masks)

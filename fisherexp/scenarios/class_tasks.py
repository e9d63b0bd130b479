"""Several tasks on one data set: each is made of some of its classes, images or texts alike."""

from functools import partial
from typing import Any

import torch

from fisherexp.config.types import AtLeastOne, ClassLabel, Count, Distinct, Probability
from fisherexp.data.datamodule import LabeledData
from fisherexp.metrics.tasks import TaskMetrics
from fisherexp.scenarios.forgetting import of_classes
from fisherexp.scenarios.setting import Setting, Store
from fisherexp.seeds import generator


class ClassTasks:
    """All tasks at once, with one head for the classes of all of them, and a shared start: the source trains on a few
    samples of every task.

    groups: the classes of each task; None for two tasks, of half the classes each. names: of the tasks; by default
    their classes. samples: of each task, for training and to choose on; None for as many as the smallest has.
    validation: the share of them put aside. shared: samples of each task in the shared start.
    """

    paper = "Matena, Raffel, NeurIPS 2022, arXiv 2111.09832"
    kind = "tasks"
    requires = ("class_labels",)
    references = {"before": "source"}

    def __init__(
        self,
        groups: AtLeastOne[Distinct[ClassLabel]] | None = None,
        names: Distinct[str] | None = None,
        samples: Count | None = None,
        validation: Probability = 0.2,
        shared: Count = 50,
    ) -> None:
        count = 2 if groups is None else len(groups)
        if names is not None and len(names) != count:
            raise ValueError(f"scenario.names: {len(names)} names for {count} groups")
        every = [label for classes in groups or () for label in classes]
        if twice := [label for place, label in enumerate(every) if label in every[:place]]:
            raise ValueError(f"scenario.groups: class {twice[0]} is in two tasks")
        self.groups, self.names = groups, names
        self.samples, self.validation, self.shared = samples, validation, shared

    def setting(self, data: LabeledData, seed: int, store: Store | None = None) -> Setting:
        """Parts: '<task>/train', '<task>/validation' and '<task>/test'; of all tasks 'every_task' (to train on),
        'validation' and 'test'; 'train' is the shared start. `tasks` has a setting for each task.

        Raises ValueError where a task has too few samples, or none to train or to choose on.
        """
        groups = self._named(data.num_classes)
        order = torch.randperm(len(data.train), generator=generator("class_tasks", seed))
        of = {name: order[of_classes(data.train.targets[order], classes)] for name, classes in groups.items()}
        size = self.samples or min(map(len, of.values()))
        for name, found in of.items():
            if len(found) < max(size, 1):
                raise ValueError(f"scenario.samples={size}, but task '{name}' has {len(found)}")
        aside = round(self.validation * size)
        if not 0 < aside < size:
            raise ValueError(f"scenario.validation={self.validation} leaves {aside} of {size} samples aside")
        if self.shared > size - aside:
            raise ValueError(f"scenario.shared={self.shared}, but a task has only {size - aside} training samples")
        train = {name: found[aside:size] for name, found in of.items()}
        test = {name: of_classes(data.test.targets, group).nonzero().flatten() for name, group in groups.items()}
        drawn = {"train": train, "validation": {name: found[:aside] for name, found in of.items()}}
        tasks = {}
        for name in groups:
            parts = {part: _some(data.train, found[name]) for part, found in drawn.items()}
            tasks[name] = self._alone(data, parts | {"test": _some(data.test, test[name])}, seed)
        parts = {f"{task}/{part}": rows for task, one in tasks.items() for part, rows in one.parts.items()}
        parts |= {
            "every_task": _some(data.train, *train.values()),
            "validation": _some(data.train, *drawn["validation"].values()),
            "test": _some(data.test, *test.values()),
            "train": _some(data.train, *(found[: self.shared] for found in train.values())),
        }
        evaluated = tuple(f"{task}/test" for task in tasks)
        return Setting(data, parts, evaluated, partial(TaskMetrics, tuple(tasks)), seed, tasks=tasks)

    def _named(self, num_classes: int) -> dict[str, list[int]]:
        """Task -> its classes."""
        half = num_classes // 2
        groups = self.groups or [list(range(half)), list(range(half, num_classes))]
        names = self.names or ["_".join(map(str, classes)) for classes in groups]
        return dict(zip(names, groups, strict=True))

    def _alone(self, data: LabeledData, parts: dict[str, Any], seed: int) -> Setting:
        return Setting(data, parts, ("test",), partial(TaskMetrics, ("test",)), seed)


def _some(samples: Any, *indices: torch.Tensor) -> Any:
    """The samples at all these indices, in their order in the data."""
    return samples.subset(torch.cat(indices).sort().values)

"""Several tasks on one data set: every task is a fixed change of all its samples (see data/task_transforms.py).

Tasks share samples and the head of the network. Each has samples to train on, some put aside to choose on, and those of
the test set. They are there all at once (experts to be merged) or one after the other (continual learning).
"""

from functools import partial
from typing import Any

import torch

from fisherexp.config.types import AtLeastOne, Count, Probability
from fisherexp.data.datamodule import LabeledData, TensorSet
from fisherexp.data.domains import pooled
from fisherexp.data.task_transforms import refuse_foreign, transform
from fisherexp.metrics.summaries import SummaryMetrics
from fisherexp.metrics.tasks import SequenceMetrics, TaskMetrics
from fisherexp.scenarios.setting import Setting, Store
from fisherexp.seeds import generator


class TaskSuite:
    """tasks: their names, which are the changes. validation: share of the training images put aside in every task.
    severity: of tasks that are corruptions, 1 … 5.
    """

    references = {"before": "source"}

    def __init__(self, tasks: AtLeastOne[str], validation: Probability = 0.2, severity: Count = 5) -> None:
        if not tasks or len(set(tasks)) < len(tasks):
            raise ValueError(f"scenario.tasks={tasks}: at least one, and each only once")
        for task in tasks:
            transform(task)  # a name of no task is refused before any data are read
        self.tasks, self.validation, self.severity = tasks, validation, severity

    def settings(self, data: LabeledData, seed: int, store: Store | None = None) -> dict[str, Setting]:
        """For each task a setting of its own, of the parts train, validation and test. The same images are put aside
        in every task. Raises ValueError where nothing is left to train or to choose on, for images in files and for
        tasks of other data."""
        refuse_foreign(self.tasks, data.title, None if "images" in data.provides else data.tasks)
        if not isinstance(data.train, TensorSet):
            raise ValueError("tasks can be made of images in memory only; set data.in_memory=true")
        order = torch.randperm(len(data.train), generator=generator("task_validation", seed))
        aside = round(self.validation * len(data.train))
        if not 0 < aside < len(data.train):
            raise ValueError(f"scenario.validation={self.validation} leaves {aside} of {len(data.train)} images aside")
        plain = {
            "train": data.train.subset(order[aside:].sort().values),
            "validation": data.train.subset(order[:aside].sort().values),
            "test": data.test,
        }
        evaluation = partial(TaskMetrics, ("test",))
        found = {}
        for task in self.tasks:
            options = {"severity": self.severity, "store": store}
            parts = {part: transform(task, part=part, **options)(images) for part, images in plain.items()}
            found[task] = Setting(data, parts, ("test",), evaluation, seed)
        return found

    def whole(self, data: LabeledData, train: TensorSet, settings: dict[str, Setting], seed: int) -> Setting:
        """All tasks as one setting, whose source trains on `train`."""
        parts = {f"{task}/{part}": images for task, one in settings.items() for part, images in one.parts.items()}
        parts |= {name: pooled([one.parts[part] for one in settings.values()]) for name, part in POOLS.items()}
        evaluated = tuple(f"{task}/test" for task in settings)
        evaluation = partial(TaskMetrics, tuple(settings))
        return Setting(data, parts | {"train": train}, evaluated, evaluation, seed, tasks=settings)


POOLS = {"every_task": "train", "validation": "validation", "test": "test"}


class Tasks(TaskSuite):
    """All tasks at once, and a shared start: the source trains on a few images, which it sees in every task.

    shared: how many images. Further options as for TaskSuite.
    """

    requires = ("images",)
    kind = "tasks"

    def __init__(self, tasks: AtLeastOne[str], shared: Count = 150, **options: Any) -> None:
        super().__init__(tasks, **options)
        self.shared = shared

    def setting(self, data: LabeledData, seed: int, store: Store | None = None) -> Setting:
        """Parts: '<task>/train', '<task>/validation' and '<task>/test'; pooled over tasks 'every_task' (to train on),
        'validation' and 'test'; 'train' is the shared start. `tasks` has a setting for each task.

        Raises ValueError for more shared images than there are.
        """
        settings = self.settings(data, seed, store)
        available = len(next(iter(settings.values())).parts["train"])
        if self.shared > available:
            raise ValueError(f"scenario.shared={self.shared}, but a task has only {available} training images")
        few = torch.randperm(available, generator=generator("task_start", seed))[: self.shared].sort().values
        train = pooled([one.parts["train"].subset(few) for one in settings.values()])
        return self.whole(data, train, settings, seed)


class TaskSequence(TaskSuite):
    """One task after the other: the source trains on the first, a method goes through the others in their order.

    few: how many training samples every task but the first has, gone through as often as it takes to be as many as the
        first has; by default all. Further options as for TaskSuite.
    """

    paper = "Kirkpatrick et al., PNAS 2017, arXiv 1612.00796"
    kind = "task_sequence"

    def __init__(self, tasks: AtLeastOne[str], few: Count | None = None, **options: Any) -> None:
        super().__init__(tasks, **options)
        self.few = few

    def setting(self, data: LabeledData, seed: int, store: Store | None = None) -> Setting:
        """Parts as for Tasks, with 'train' that of the first task; `requests` has the settings of the others.
        Evaluated on the test parts and, to choose on, the validation parts of all tasks; of text also by what is
        written in the
        last one.

        Raises ValueError for a single task and for more few samples than there are.
        """
        settings = self.settings(data, seed, store)
        first, *others = settings.values()
        if not others:
            raise ValueError(f"scenario.tasks={self.tasks}: a sequence has at least two tasks")
        if self.few is not None:
            for one in others:
                one.parts["train"] = one.parts["train"].subset(self._few(len(one.parts["train"]), seed))
        whole = self.whole(data, first.parts["train"], settings, seed)
        whole.requests = tuple(others)
        whole.evaluated += tuple(f"{task}/validation" for task in settings)
        names = tuple(settings)
        whole.evaluation = partial(SequenceMetrics, names)
        if data.marks:
            whole.evaluation = partial(SummaryMetrics, names, **data.marks)
        return whole

    def _few(self, samples: int, seed: int) -> torch.Tensor:
        """Indices (samples,) of few of them, each about as often as any other."""
        if self.few > samples:
            raise ValueError(f"scenario.few={self.few}, but a task has only {samples} training samples")
        chosen = torch.randperm(samples, generator=generator("task_few", seed))[: self.few]
        return chosen.repeat(-(-samples // self.few))[:samples]

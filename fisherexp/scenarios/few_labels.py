"""Semi-supervised learning: a few training samples have labels, all of them are there without."""

from dataclasses import replace

import torch
from torch import Tensor

from fisherexp.config.types import Count
from fisherexp.data.datamodule import LabeledData
from fisherexp.scenarios.plain import Plain
from fisherexp.scenarios.setting import Setting, Store
from fisherexp.seeds import generator


class FewLabels(Plain):
    """labels: how many samples have one, drawn by the run's seed: as many of each class as can be."""

    paper = "Sohn et al., NeurIPS 2020, arXiv 2001.07685"
    name = "few_labels"
    kind = "few_labels"
    requires = ("class_labels",)

    def __init__(self, labels: Count = 40) -> None:
        self.labels = labels

    def setting(self, data: LabeledData, seed: int, store: Store | None = None) -> Setting:
        """Parts: 'train', the samples with labels; 'unlabelled', every training sample. The labels that the latter has
        are for reports alone. Test and validation parts, and the evaluation, are those of the plain data.

        Raises ValueError for more labels than training samples.
        """
        if self.labels > len(data.train):
            raise ValueError(f"scenario.labels={self.labels}: there are only {len(data.train)} training samples")
        chosen = balanced(data.train.targets, self.labels, generator("few_labels", seed))
        plain = super().setting(data, seed, store)
        parts = plain.parts | {"train": data.train.subset(chosen), "unlabelled": data.train}
        return replace(plain, parts=parts, altered=True)


def balanced(labels: Tensor, count: int, draws: torch.Generator) -> Tensor:
    """Indices (count,), in order, of random samples of labels (n,): the same number of each class, as far as count and
    classes allow."""
    order = torch.randperm(len(labels), generator=draws)
    earlier = torch.zeros(len(labels), dtype=torch.int64)  # samples of the same class that come before
    for label in labels.unique():
        places = (labels[order] == label).nonzero().flatten()
        earlier[places] = torch.arange(len(places))
    return order[earlier.argsort(stable=True)[:count]].sort().values

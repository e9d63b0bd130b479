"""Statistics of BatchNorm for weights that were never trained: averaged as the weights are, or taken anew.

Jordan et al., ICLR 2023, arXiv 2211.08403: in a mean of two networks the variance of activations collapses, and the
mean of their running statistics hides it. As there and in Ainsworth et al., ICLR 2023, arXiv 2209.04836, statistics are
taken anew by one pass over training images.
"""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fisherexp.data.batch import Batch
from fisherexp.methods.method import ModelMethod
from fisherexp.scenarios.setting import Setting


def recomputed(model: nn.Module, state: dict[str, Tensor], batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """`state` with running means and variances of BatchNorm from one pass over `batches` of images (B, C, H, W).

    They are the means of the statistics of all batches, weighted by the number of images; every layer sees what the
    layers before it, normalized by the batch, put out. The rest of the network is in eval mode.
    """
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    if not norms:
        return state
    probe = copy.deepcopy(model).eval()
    layers = [probe.get_submodule(name).train() for name in norms]
    fresh, seen = dict(probe.named_buffers()), 0
    for images in batches:
        seen += len(images)
        for layer in layers:
            layer.momentum = len(images) / seen  # of the first batch 1: nothing is left of earlier statistics
        with torch.no_grad():
            functional_call(probe, state | fresh, images)
    return state | {name: buffer for name, buffer in fresh.items() if name.rpartition(".")[0] in norms}


class MergedStatistics(ModelMethod):
    """A method whose model is merged from several.

    batch_norm: the running statistics of BatchNorm of what is merged. 'average': of the models, like their weights;
    'recompute': those that one pass over the part `statistics_of` gives, shuffled, in batches for evaluation.
    """

    requires = ("class_labels",)
    counts_with = {"batch_norm": {"/model.batch_norm": True}}  # where the network leaves the choice
    statistics_of: ClassVar[str] = "train"

    def __init__(self, model: nn.Module, batch_norm: Literal["average", "recompute"] = "average") -> None:
        super().__init__(model)
        self.batch_norm = batch_norm
        self.statistics_pass: Callable[[], Iterable[Batch]] | None = None

    def batches(self, setting: Setting) -> Any:
        size, samples = setting.data.eval_batch_size, len(setting.parts[self.statistics_of])
        # The same order for every model, all images on every rank; a last batch of one image has no variance.
        options = {"batch_size": size, "drop_last": samples > 1 and samples % size == 1, "rank": 0, "world_size": 1}
        self.statistics_pass = partial(setting.loader, self.statistics_of, shuffle=True, **options)
        return super().batches(setting)

    def with_statistics(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """`state`, which has averaged statistics, with those that `batch_norm` asks for."""
        if self.batch_norm == "average":
            return state
        return recomputed(self.model, state, (batch.inputs for batch in self.statistics_pass()))

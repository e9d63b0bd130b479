"""A short stream over digits with noise, a small source model, and methods as their config files make them."""

import copy
from functools import partial

import pytest
import torch
from hydra.utils import instantiate

from fisherexp.config.explain import composed
from fisherexp.data.tensors import TensorSet
from fisherexp.metrics.classification import ClassificationMetrics
from fisherexp.runs.workbench import Workbench
from fisherexp.scenarios.setting import Segment, Setting
from fisherexp.seeds import generator

SMALL = ["model.width=8", "training.epochs=5", "scenario=none", "progress=off", "threads=1"]


def noisy(images: TensorSet, deviation: float) -> TensorSet:
    """Images with Gaussian noise of a standard deviation on the scale [0, 1]."""
    noise = deviation * torch.randn(images.inputs.shape, generator=generator("noise", 0))
    return TensorSet(((images.inputs / 255 + noise).clamp(0, 1) * 255).round().to(torch.uint8), images.targets)


@pytest.fixture(scope="session")
def bench(tmp_path_factory) -> Workbench:
    """A workbench whose data are digits; its source model is trained once."""
    return Workbench(composed([*SMALL, "method=tent", f"output_dir={tmp_path_factory.mktemp('adaptation')}"]))


@pytest.fixture(scope="session")
def stream(bench):
    """stream(*segments, size=…, window=…): a setting of parts with more and more noise."""

    def make(*segments: Segment, size: int = 50, window: int = 0, images: int = 200) -> Setting:
        test = bench.data.test.subset(torch.arange(images))
        names = tuple(f"noise_{i}" for i in range(len(segments)))
        parts = {name: noisy(test, 0.2 + 0.1 * i) for i, name in enumerate(names)}
        parts |= {"train": bench.data.train, "test": bench.data.test}
        evaluation = partial(ClassificationMetrics, names)
        return Setting(bench.data, parts, names, evaluation, segments=segments, stream_batch_size=size, window=window)

    return make


@pytest.fixture(scope="session")
def make(bench):
    """make(name, …): a method as its YAML describes it, around the source model."""

    def build(name: str, *overrides: str, model: torch.nn.Module | None = None):
        cfg = composed([*SMALL, f"method={name}", *(f"method.{o}" for o in overrides)])
        if model is None:
            model = bench.method("source.method").model
            model.load_state_dict(bench.reference("source").tensors)
        method = instantiate(cfg.method, _convert_="all", model=copy.deepcopy(model))
        if "fisher" in method.needs:
            method.given["fisher"], _ = bench.fisher(method.importance, bench.reference("source"))
        return method

    return build


@pytest.fixture(scope="session")
def follow():
    """follow(method, setting): every batch through `test_step`; the logits that each was evaluated by."""

    def through(method, setting: Setting) -> list[torch.Tensor]:
        found = []
        method.evaluate(setting)
        evaluate = method.evaluation.update

        def update(part, logits, labels):
            found.append(logits.clone())
            evaluate(part, logits, labels)

        method.evaluation.update = update
        for number, part in enumerate(setting.evaluated):
            for index, batch in enumerate(setting.loader(part, batch_size=setting.stream_batch_size)):
                method.test_step(batch, index, number)
        method.outcome = method.summary()
        return found

    return through

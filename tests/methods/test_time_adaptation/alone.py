"""A test-time method by itself: a small random network in double precision, random images, no data set, no training."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.data.batch import Batch
from fisherexp.models.classifier import Classifier
from fisherexp.scenarios.setting import Segment

CLASSES, SIDE = 5, 8


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(confidence: float = 1.0) -> Classifier:
    """Two convolutions with BatchNorm and a head, whose logits have mean 0 and, on average, this standard deviation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = nn.BatchNorm2d(6, momentum=1.0), nn.BatchNorm2d(8, momentum=1.0)
        layers = [nn.Conv2d(1, 6, 3), first, nn.ReLU(), nn.Conv2d(6, 8, 3), second, nn.ReLU()]
        model = Classifier(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 8, CLASSES).double()
    with torch.no_grad():
        model.train()(images(60))  # its statistics are stored
        logits = model.eval()(images(60))
        scale = confidence / logits.std(0).mean()
        model.head.weight.mul_(scale)
        model.head.bias.sub_(logits.mean(0)).mul_(scale)
    return model


def images(count: int, seed: int = 0) -> Tensor:
    """Random images (count, 1, SIDE, SIDE) in [0, 1], each with a contrast of its own."""
    pixels = torch.rand(count, 1, SIDE, SIDE, generator=drawn(seed), dtype=torch.float64)
    return pixels * torch.rand(count, 1, 1, 1, generator=drawn(seed + 1), dtype=torch.float64)


def answers(
    method: Any, batches: list[Tensor], size: int | None = None, window: int = 0, mirrors: bool = True
) -> list[Tensor]:
    """Logits by which each batch is evaluated, in a stream of one segment. size: configured, of a batch. mirrors: as of
    a data set."""
    found: list[Tensor] = []
    evaluation = SimpleNamespace(update=lambda part, logits, targets: found.append(logits.clone()))
    evaluation.to = lambda device: evaluation
    size = size or len(batches[0])
    setting = SimpleNamespace(
        data=SimpleNamespace(input_shape=tuple(batches[0].shape[1:]), eval_batch_size=size, mirrors=mirrors),
        parts={"stream": [None] * sum(map(len, batches))},
        evaluated=("stream",),
        evaluation=lambda: evaluation,
        segments=(Segment(),),
        stream_batch_size=size,
        window=window,
        seed=0,
        device=torch.device("cpu"),
        world_size=1,
    )
    method.evaluate(setting)
    method.double()  # the trainer sets the precision after that
    for number, batch in enumerate(batches):
        method.test_step(Batch(batch, torch.zeros(len(batch), dtype=torch.int64)), number, 0)
    return found

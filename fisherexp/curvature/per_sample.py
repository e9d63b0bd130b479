"""Per-sample gradient norms and second moments of selected layers, without storing per-sample gradients."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .choices import check_choice
from .engine import Engine
from .inputs import batch_size, move
from .likelihood import LABELS, counted_classes
from .resolve import check_tensor, counted, resolve
from .squares import Gathered, SecondMoments, SquaredNorms
from .undisturbed import refuse_batch_statistics


def _sweep(engine: Engine, batch: tuple, loss: Any, labels: str, consumer: Gathered | None = None) -> Gathered:
    """One batch (inputs, targets) through the engine; without a consumer, squared norms are collected."""
    likelihood = resolve(loss, check_choice("labels", labels, LABELS))
    refuse_batch_statistics(engine.model)
    generator = torch.Generator(engine.device).manual_seed(0)
    with engine.undisturbed:
        inputs, targets = (part if part is None else move(part, engine.device) for part in (*batch, None)[:2])
        if labels == "empirical" and targets is None:
            raise ValueError("labels='empirical' needs targets")
        check_tensor(likelihood, targets)
        consumer = consumer or SquaredNorms(engine.wanted, batch_size(inputs))

        def seeds(outputs: Tensor) -> Iterable[Tensor]:
            likelihood.check(outputs, targets)
            kept = likelihood.kept(targets, labels)
            if kept is None:
                yield from likelihood.seeds(outputs, targets, labels, None, generator)
                return
            y = (
                counted_classes(targets) if targets.dim() == 1 else targets
            )  # samples that do not count have a place and no gradient
            for s in likelihood.seeds(outputs, y, labels, None, generator):
                yield s * kept.reshape(-1, *[1] * (s.dim() - 1))

        engine.sweep(inputs, seeds, consumer)
    return consumer


def per_sample_gradient_norms(
    model: nn.Module,
    inputs: Any,
    targets: Tensor | None = None,
    *,
    labels: str = "empirical",
    loss: Any = None,
    parameters: Any = None,
) -> dict[str, Tensor]:
    """Norm of each sample's gradient, (N,) for every parameter; the model is left as it was.

    The norm over all parameters is the root of the sum of squares. With labels='expected', the root of the
    expected squared norm. Linear layers: ‖G_n‖² = Σ_ts (g_t·g_s)(x_t·x_s) (Goodfellow 2015; Li et al. 2022).
    Arguments and errors as in `DiagonalAccumulator`.
    """
    engine = Engine(model, parameters)
    norms = _sweep(engine, (inputs, targets), loss, labels).norms
    zero = torch.zeros(batch_size(inputs), device=engine.device)
    return {name: norms.get(name, zero).sqrt() for name in engine.wanted}


def gradient_second_moments(
    model: nn.Module,
    batches: Iterable,
    *,
    parameters: Any,
    labels: str = "empirical",
    loss: Any = None,
) -> dict[str, Tensor]:
    """E[vec(G) vec(G)ᵀ] over samples, (P, P) for every selected parameter: its full Fisher block.

    batches of (inputs, targets); `parameters` must be selected (memory P² each). Arguments and errors as in
    `DiagonalAccumulator`; raises ValueError if there are no batches.
    """
    engine = Engine(model, parameters)
    consumer, count = SecondMoments(engine.wanted), 0
    for batch in batches:
        inputs, targets = (*batch, None)[:2]
        likelihood = resolve(loss, check_choice("labels", labels, LABELS))
        inputs, targets, _, size = counted(likelihood, labels, inputs, targets, None, batch_size(inputs))
        if size:
            _sweep(engine, (inputs, targets), likelihood, labels, consumer)
            count += size
    if not count:
        raise ValueError("no samples were added")
    return {name: consumer.sums[name] / count for name in engine.wanted if name in consumer.sums}

"""The definition itself: per-sample gradients by one sample at a time through the unchanged model."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from . import randomness
from .consumer import Consumer
from .identity import coupled, fitting, rounding, same_outputs
from .inputs import outputs_of, select


def one_by_one(
    model: nn.Module,
    wanted: Mapping[str, Tensor],
    inputs: Any,
    batch: int,
    samples: int,
    values: Tensor,
    passes: list[Tensor],
    consumer: Consumer,
) -> None:
    """Feed `consumer` each sample's gradients of the parameters `wanted`, for every seed of `passes`.

    values: the outputs of the whole batch. Raises CoupledSamples if a sample alone has others than in its batch.
    """
    names, parameters, each = list(wanted), list(wanted.values()), batch // samples
    device, eps = parameters[0].device, 0.0
    for i in range(samples):
        rows = slice(i * each, (i + 1) * each)
        with randomness.kept(device):
            out = outputs_of(model, select(inputs, rows, batch))
        eps = eps or rounding(out, values, *parameters)
        if out.dim() != values.dim() or not same_outputs(out, values[rows], eps):
            raise coupled("the outputs")
        for k, seed in enumerate(passes):
            gradients = [None] * len(parameters)
            if out.requires_grad:
                gradients = torch.autograd.grad(
                    out,
                    parameters,
                    fitting(seed[rows], out).to(out.dtype),
                    retain_graph=k + 1 < len(passes),
                    allow_unused=True,
                )
            pairs = zip(parameters, gradients, strict=True)
            consumer.one_by_one(names, i, [torch.zeros_like(p) if g is None else g for p, g in pairs])

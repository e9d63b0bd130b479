"""Hessian and Gauss-Newton products of any nn.Module, by parameter name and without forming a matrix.

Hessian: H v = d(g . v)/d theta with g the gradient of the mean loss (Pearlmutter 1994). Gauss-Newton:
G v = J^T H_z J v with J the Jacobian of the outputs z and H_z the loss Hessian in them (Schraudolph 2002);
J v is taken as the derivative of w -> (J^T w) . v, so one recorded graph serves every product. For
cross-entropy G is the Fisher with the model's own labels.

Batches are any iterable of (inputs, targets) or (inputs, targets, weights of the samples); inputs may be a
tensor, a tuple of arguments, or a dict of keyword arguments. ``loss`` is a name or likelihood of
``likelihood``, or a callable ``loss(outputs, targets)`` that returns per-sample losses or their mean. The
result belongs to the mean loss over all samples of all batches: parts count by their number of samples (of
entries, where a callable returns one loss per entry), or by their total weight.

Attention runs on the math SDPA backend throughout: fused kernels have no second derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .inputs import outputs_of
from .matrix import LinearMap
from .mean_loss import Loss, loss_of_batch, mean_loss, unpack
from .undisturbed import Undisturbed, wanted_parameters
from .vectors import Vector, in_form_of

Parameters = dict[str, Tensor]
FlatProduct = Callable[[list[Tensor]], list[Tensor]]


def hessian_product(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    vector: Mapping[str, Tensor],
    *,
    eval_mode: bool = True,
    probe: bool = True,
) -> Parameters:
    """H v of the mean loss, for the block of H of the parameters named in ``vector``.

    Args:
        vector: by parameter name, shaped like the parameters; the names choose the block.
        eval_mode: run in eval mode, each module's own mode restored after. False keeps the modes as they are.
        probe: run the first batch's forward pass once more to find out whether it is deterministic.

    Raises:
        ValueError: unknown or frozen name, wrong shape, no batch, batch-statistics BatchNorm.
        RuntimeError: two identical passes differ (dropout in train mode).
        FloatingPointError: a loss is NaN or infinite; the batch is named.
    """
    return hessian_operator(model, loss, batches, vector, eval_mode=eval_mode, probe=probe)(vector)


def ggn_product(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    vector: Mapping[str, Tensor],
    *,
    eval_mode: bool = True,
    probe: bool = True,
) -> Parameters:
    """G v of the mean loss, G the Gauss-Newton matrix; arguments and errors of :func:`hessian_product`."""
    return ggn_operator(model, loss, batches, vector, eval_mode=eval_mode, probe=probe)(vector)


def hessian_operator(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    parameters: Iterable[str] | None = None,
    *,
    eval_mode: bool = True,
    probe: bool = True,
) -> CurvatureOperator:
    """The Hessian as a linear operator; ``parameters`` names a block (all trainable ones by default)."""
    return CurvatureOperator(hessian_of_batch, model, loss, batches, parameters, eval_mode, probe)


def ggn_operator(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    parameters: Iterable[str] | None = None,
    *,
    eval_mode: bool = True,
    probe: bool = True,
) -> CurvatureOperator:
    """The Gauss-Newton matrix as a linear operator; arguments of :func:`hessian_operator`."""
    return CurvatureOperator(ggn_of_batch, model, loss, batches, parameters, eval_mode, probe)


class CurvatureOperator(LinearMap):
    """A symmetric linear operator on vectors over parameters: call it with one.

    ``extreme_eigenpairs(operator, operator.like, k)`` gives its top eigenpairs. Batches must be re-iterable and
    hold the same samples each time (no random augmentation); an iterator is read into a list. With one batch the
    recorded graph is kept between products.
    """

    def __init__(self, of_batch, model, loss, batches, parameters, eval_mode: bool, probe: bool) -> None:
        self.model, self.loss, self.eval_mode = model, loss, eval_mode
        self.batches = list(batches) if isinstance(batches, Iterator) else batches
        self.parameters = trainable_parameters(model, parameters)
        self._of_batch, self._probe = of_batch, probe
        self._kept: tuple[list[int], FlatProduct, float] | None = None

    @property
    def like(self) -> Parameters:
        """The parameters the operator acts on: names, shapes, dtype and device of its vectors."""
        return {name: p.detach() for name, p in self.parameters.items()}

    def graphs(self) -> Iterator[tuple[FlatProduct, float]]:
        """Per batch, the product of that batch's mean loss, and the batch's weight.

        One graph is alive at a time; that of a single batch stays until a parameter or buffer changes.
        """
        if self._kept is not None and self._kept[0] == self._versions():
            yield self._kept[1:]
            return
        self._kept, seen = None, 0
        for batch in self.batches:
            with evaluation(self.model, self.parameters, self.eval_mode):
                if self._probe:
                    check_deterministic(self.model, batch)
                    self._probe = False
                try:
                    graph = self._of_batch(self.model, self.loss, batch, list(self.parameters.values()))
                except FloatingPointError as error:
                    raise FloatingPointError(f"batch {seen} (counting from 0): {error}") from None
            seen += 1
            yield graph
        if seen == 0:
            raise ValueError("no batches: curvature of an empty data set is undefined")
        if seen == 1:
            self._kept = (self._versions(), *graph)

    def matvec(self, vector: Vector) -> Vector:
        parts = self._checked(vector)
        mean, weight = [], 0.0
        for product, count in self.graphs():
            image, weight = product(parts), weight + count
            mean = [m.lerp(i, count / weight) for m, i in zip(mean, image, strict=True)] if mean else image
        return in_form_of(vector, dict(zip(self.parameters, mean, strict=True)))

    def dense(self, at_once: int = 128) -> Tensor:
        """The matrix (d, d), by products with `at_once` unit vectors at a time."""
        mean, weight = torch.zeros(()), 0.0
        units = torch.eye(self.dim).to(next(iter(self.like.values())))
        for product, count in self.graphs():
            columns = []
            for vectors in units.split(at_once):
                parts = vectors.split([p.numel() for p in self.like.values()], dim=1)
                shaped = [part.unflatten(1, p.shape) for part, p in zip(parts, self.like.values(), strict=True)]
                columns.append(torch.cat([image.flatten(1) for image in torch.vmap(product)(shaped)], 1))
            weight += count
            mean = torch.lerp(mean.to(units).expand_as(units), torch.cat(columns), count / weight)
        return mean

    def _versions(self) -> list[int]:
        """Changes when a parameter or buffer is written to, as an optimizer step does."""
        return [t._version for t in (*self.model.parameters(), *self.model.buffers())]

    def _checked(self, vector: Vector) -> list[Tensor]:
        vector = self.named(vector) if isinstance(vector, Tensor) else vector
        if set(vector) != set(self.parameters):
            odd = sorted(set(vector) ^ set(self.parameters))
            raise ValueError(f"the vector's names are not the operator's; they differ in {odd[:5]}")
        for name, p in self.parameters.items():
            if vector[name].shape != p.shape:
                raise ValueError(f"{name}: shape {tuple(vector[name].shape)}, parameter {tuple(p.shape)}")
        return [vector[name].detach().to(p) for name, p in self.parameters.items()]


def hessian_of_batch(model: nn.Module, loss: Loss, batch: Any, parameters: list[Tensor]) -> tuple[FlatProduct, float]:
    """The Hessian product of one batch's mean loss, its gradient graph built once, and the batch's weight."""
    value, weight = loss_of_batch(model, loss, batch)
    gradient = _gradient(value, parameters, create_graph=True)
    return partial(_derivative_along, gradient, parameters), weight


def ggn_of_batch(model: nn.Module, loss: Loss, batch: Any, parameters: list[Tensor]) -> tuple[FlatProduct, float]:
    """The Gauss-Newton product of one batch's mean loss, its graphs built once, and the batch's weight."""
    inputs, targets, weights = unpack(model, batch)
    outputs = outputs_of(model, inputs)
    z = outputs.detach().requires_grad_()
    value, weight = mean_loss(loss, z, targets, weights)
    loss_gradient = _gradient(value, [z], create_graph=True)
    w = torch.zeros_like(outputs, requires_grad=True)
    pulled_back = _gradient(outputs, parameters, grad_outputs=w, create_graph=True)

    def product(vector: list[Tensor]) -> list[Tensor]:
        pushed_forward = _derivative_along(pulled_back, [w], vector)
        (curved,) = _derivative_along(loss_gradient, [z], pushed_forward)
        return _gradient(outputs, parameters, grad_outputs=curved, retain_graph=True)

    return product, weight


def trainable_parameters(model: nn.Module, names: Iterable[str] | None = None) -> Parameters:
    """Parameters by name, each tied one once: those asked for, or all that require gradients.

    Raises:
        ValueError: unknown name, frozen parameter, or nothing to differentiate.
    """
    chosen = wanted_parameters(model, names if names is None else list(names))
    frozen = [name for name, p in chosen.items() if not p.requires_grad]
    if frozen:
        raise ValueError(f"frozen parameters have no curvature here: {frozen[:5]}; call requires_grad_(True)")
    return chosen


@contextmanager
def evaluation(model: nn.Module, names: Iterable[str], eval_mode: bool = True) -> Iterator[None]:
    """Eval mode (if asked), gradients of ``names`` only, math attention; the model is put back afterwards.

    Raises:
        ValueError: a BatchNorm layer would use the statistics of the batch.
    """
    trained = [module for module in model.modules() if module.training]
    with Undisturbed(model, names), sdpa_kernel(SDPBackend.MATH):
        for module in trained:
            module.training = not eval_mode
        for name, module in model.named_modules():
            batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            if batch_norm and (module.training or module.running_mean is None):
                raise ValueError(
                    f"{type(module).__name__} {name!r} uses the statistics of the batch, so the loss is no "
                    "mean over samples: use eval_mode=True and running statistics, or GroupNorm"
                )
        yield


def check_deterministic(model: nn.Module, batch: Any) -> None:
    """Runs the forward pass twice; RuntimeError with the remedy if the outputs differ beyond rounding."""
    inputs, *_ = unpack(model, batch)
    with torch.no_grad():
        first, second = outputs_of(model, inputs), outputs_of(model, inputs)
    noise = (first - second).abs().max()
    if noise > torch.finfo(first.dtype).eps ** 0.5 * first.abs().max():
        dropout = nn.modules.dropout._DropoutNd
        active = [n for n, m in model.named_modules() if isinstance(m, dropout) and m.training]
        cause = f"dropout in train mode ({', '.join(active[:3])})" if active else "a random layer"
        raise RuntimeError(
            f"two forward passes on the same batch differ by {noise.item():.1e}: {cause}. A curvature "
            "product needs a fixed function: use eval_mode=True, and F.dropout(..., training=self.training)"
        )


def _gradient(of: Tensor, at: list[Tensor], **options: Any) -> list[Tensor]:
    """autograd.grad with zeros for what ``of`` does not depend on."""
    if not of.requires_grad:
        return [torch.zeros_like(x) for x in at]
    return list(torch.autograd.grad(of, at, allow_unused=True, materialize_grads=True, **options))


def _derivative_along(of: list[Tensor], at: list[Tensor], vector: list[Tensor]) -> list[Tensor]:
    """d(sum_k of_k . vector_k)/d at, the graph kept; entries of ``of`` without a graph are constants."""
    live = [(f, v) for f, v in zip(of, vector, strict=True) if f.requires_grad]
    if not live:
        return [torch.zeros_like(x) for x in at]
    functions, directions = zip(*live, strict=True)
    return list(
        torch.autograd.grad(functions, at, directions, retain_graph=True, allow_unused=True, materialize_grads=True)
    )

"""Peers of the per-sample diagonal Fisher and of KFAC's factors: `PEERS[kind][name](model, inputs, targets) -> run()`.

Those that are not installed are reported and left out.
"""

import copy
from functools import partial

import torch
from fisher_models import plain_loss
from torch.func import functional_call, grad, vmap


def batch_of_one(model, inputs, targets):
    """The definition: one sample at a time."""
    model.eval()
    parameters = list(model.parameters())

    def run():
        sums = [torch.zeros_like(p) for p in parameters]
        for x, y in zip(inputs.split(1), targets.split(1), strict=True):
            gradients = torch.autograd.grad(plain_loss(model(x), y), parameters)
            for total, g in zip(sums, gradients, strict=True):
                total.addcmul_(g, g)
        return sums

    return run


def vmap_grad(model, inputs, targets, chunk=8):
    """torch.func per-sample gradients, eight samples at a time."""
    model.eval()
    values = {n: p.detach() for n, p in model.named_parameters()}

    def loss(p, x, y):
        return plain_loss(functional_call(model, p, (x[None],)), y[None])

    per_sample = vmap(grad(loss), in_dims=(None, 0, 0))

    def run():
        sums = {n: torch.zeros_like(v) for n, v in values.items()}
        for x, y in zip(inputs.split(chunk), targets.split(chunk), strict=True):
            for n, g in per_sample(values, x, y).items():
                sums[n] += g.square().sum(0)
        return sums

    return run


def backpack_sum_grad_squared(model, inputs, targets):
    """BackPACK's SumGradSquared."""
    from backpack import backpack, extend
    from backpack.extensions import SumGradSquared

    if targets.dim() == 2:
        raise NotImplementedError("sequence losses")
    model = extend(copy.deepcopy(model).eval())
    loss = extend(torch.nn.CrossEntropyLoss(reduction="sum"))

    def run():
        model.zero_grad(set_to_none=True)
        with backpack(SumGradSquared()):
            loss(model(inputs), targets).backward()
        return [p.sum_grad_squared for p in model.parameters()]

    return run


def nngeometry_diagonal(model, inputs, targets):
    """NNGeometry's PMatDiag of per-sample losses."""
    from nngeometry.metrics import FIM
    from nngeometry.object import PMatDiag
    from torch.utils.data import DataLoader, TensorDataset

    if targets.dim() == 2:
        raise NotImplementedError("sequence losses")
    model = model.eval()
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=len(inputs))

    def losses(x, y):
        return torch.nn.functional.cross_entropy(model(x), y, reduction="none").unsqueeze(1)

    return lambda: FIM(model, loader, PMatDiag, variant="regression", function=losses)


def curvlinops_kfac(model, inputs, targets, approximation, compiled=False):
    """curvlinops' factors of one batch, linear and convolutional layers, by its traced function (main branch)."""
    from curvlinops.computers.kfac_make_fx import make_compute_kfac_batch
    from curvlinops.kfac_utils import FisherType

    model = model.eval()
    layers = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)}
    values = {n: p for n, p in model.named_parameters() if n.rpartition(".")[0] in layers}
    if targets.dim() == 2:
        raise NotImplementedError("sequence losses")

    def outputs(parameters, x):
        return functional_call(model, parameters, (x,))

    factors, _ = make_compute_kfac_batch(
        outputs,
        torch.nn.CrossEntropyLoss(),
        values,
        inputs,
        targets,
        fisher_type=FisherType.EMPIRICAL,
        kfac_approx=approximation,
        separate_weight_and_bias=False,
    )
    factors = torch.compile(factors) if compiled else factors

    @torch.no_grad()
    def run():
        return factors(values, inputs, targets)

    return run


PEERS = {
    "fisher": {
        "batch-size-1 loop": batch_of_one,
        "vmap(grad), chunk 8": vmap_grad,
        "backpack SumGradSquared": backpack_sum_grad_squared,
        "nngeometry PMatDiag": nngeometry_diagonal,
    },
    "kfac": {
        f"curvlinops {approximation}{' compiled' * compiled}": partial(
            curvlinops_kfac, approximation=approximation, compiled=compiled
        )
        for approximation in ("expand", "reduce")
        for compiled in (False, True)
    },
}

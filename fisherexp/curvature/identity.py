"""The randomized identity by which per-sample gradients are verified.

With losses ℓ_n, random weights ε_n and some samples S of the batch, evaluated by the untouched model without the
others and in another order,

    ∇ Σ_{n∈S} ε_n ℓ_n  =  Σ_{n∈S} ε_n G_n,

where the left side is ordinary autograd and G_n is what the engine takes for the gradient of sample n in the whole
batch. A use of a parameter that was missed, rows taken for those of another sample, and samples that influence each
other all break it, parameter by parameter; so do outputs that are not those of the untouched model.

Rounding: two orders of summation agree to √eps of the dtype, relative to the gradient's norm; gradients that vanish by
symmetry are noise of at most eps^¾ of the largest. √eps is 1.5e-8 in float64, 3e-4 in float32, 0.09 in bfloat16.
"""

import torch
from torch import Tensor, nn

from .inputs import outputs_of, select
from .rules.normalization import CoupledSamples

WHOLE = 2**20  # samples x parameters up to which the whole batch is verified: it costs next to nothing
SHARE = 8  # of a larger problem, one sample in eight


def coupled(what: str) -> CoupledSamples:
    """The error for samples that influence each other."""
    return CoupledSamples(
        f"{what} of a sample change with the other samples of its batch (batch statistics, in-batch comparisons, or "
        "randomness in eval mode), so it has no gradient of its own. Remedy: normalize with stored statistics "
        "(track_running_stats=True) or per sample, or ask for gradients='batch_mean'."
    )


def rounding(*tensors: Tensor) -> float:
    """eps of the coarsest floating dtype among the tensors and an active autocast."""
    dtypes = [t.dtype for t in tensors if t.is_floating_point() or t.is_complex()]
    kind = tensors[0].device.type
    if torch.is_autocast_enabled(kind):
        dtypes.append(torch.get_autocast_dtype(kind))
    return max(torch.finfo(d).eps for d in dtypes)


class Part:
    """Some samples of a batch and their outputs, with graph, from the untouched model.

    block: consecutive samples of the batch; order: the samples as they are evaluated, all of `block`, perhaps one of
    them twice; weights: ε of each in that order. A sample is `each` consecutive rows of the batch.
    """

    def __init__(self, block: slice, order: Tensor, weights: Tensor, each: int):
        self.block, self.order, self.weights, self.each = block, order, weights, each
        self.rows = (order.unsqueeze(1) * each + torch.arange(each, device=order.device)).flatten()
        self.outputs: Tensor | None = None

    @classmethod
    def draw(
        cls, samples: int, each: int, everything: bool, generator: torch.Generator, device: torch.device
    ) -> "Part":
        """Random samples. everything: all of them and one twice, so that a part is never the batch itself."""
        size = samples if everything else max(1, samples // SHARE)
        start = int(torch.randint(samples - size + 1, (), generator=generator))
        order = start + torch.randperm(size, generator=generator)
        if everything:
            order = torch.cat([order, order[:1]])
        weights = torch.rand(len(order), generator=generator, dtype=torch.float64) + 0.5
        weights = weights * (torch.randint(2, (len(order),), generator=generator) * 2 - 1)
        return cls(slice(start, start + size), order.to(device), weights.to(device), each)

    def evaluate(self, model: nn.Module, inputs, batch: int) -> None:
        """One forward pass."""
        self.outputs = outputs_of(model, select(inputs, self.rows, batch))

    def sample_weights(self, like: Tensor) -> Tensor:
        """ε of each sample of `block`, in its order."""
        total = torch.zeros(self.block.stop - self.block.start, dtype=torch.float64, device=like.device)
        return total.index_add_(0, self.order - self.block.start, self.weights.to(total)).to(like.dtype)

    def seeds(self, whole: Tensor) -> Tensor:
        """Rows of `whole`, seeds of the batch, weighted and in the shape of the part's outputs."""
        scale = self.weights.repeat_interleave(self.each).to(whole)
        return fitting(whole[self.rows], self.outputs) * scale.reshape(-1, *[1] * (whole.dim() - 1))

    def gradients(self, whole: Tensor, parameters: list[Tensor]) -> list[Tensor | None]:
        """∇ Σ ε_n ℓ_n of the parameters, for seeds `whole` of the batch."""
        return _gradients(self.outputs, self.seeds(whole), parameters)


def _gradients(outputs: Tensor, seeds: Tensor, parameters: list[Tensor]) -> list[Tensor | None]:
    if not outputs.requires_grad:
        return [None] * len(parameters)
    return torch.autograd.grad(outputs, parameters, seeds.to(outputs.dtype), retain_graph=True, allow_unused=True)


def fitting(seeds: Tensor, outputs: Tensor) -> Tensor:
    """Seeds cut to the shape of outputs, which are shorter where padding of a batch is left away.

    Raises CoupledSamples if something is cut off, or if outputs are longer.
    """
    if seeds.shape == outputs.shape:
        return seeds
    smaller = seeds.dim() == outputs.dim() and all(o <= s for o, s in zip(outputs.shape, seeds.shape, strict=True))
    if smaller:
        cut = seeds[tuple(slice(size) for size in outputs.shape)]
        if torch.count_nonzero(cut) == torch.count_nonzero(seeds):
            return cut
    raise coupled(f"the number of outputs ({tuple(outputs.shape[1:])} or {tuple(seeds.shape[1:])})")


def same_outputs(found: Tensor, expected: Tensor, eps: float) -> bool:
    """Whether outputs agree up to rounding, where both have entries."""
    if found.dim() != expected.dim():
        return False
    common = tuple(slice(min(a, b)) for a, b in zip(found.shape, expected.shape, strict=True))
    found, expected = found.detach()[common].double(), expected.detach()[common].double()
    scale = torch.maximum(found.abs().max(), expected.abs().max()) if found.numel() else 0.0
    return bool(((found - expected).abs() <= 1e3 * eps * scale).all()) if found.numel() else True


def differing(
    found: dict[str, Tensor], names: list[str], expected: list[Tensor | None], seeds: Tensor, eps: float
) -> list[str]:
    """The parameters whose gradients do not agree. found: by name, nothing for a parameter that was not met."""
    pairs, missing = [], []
    for name, right in zip(names, expected, strict=True):
        left = found.get(name)
        if left is not None and right is None:
            right = torch.zeros_like(left)
        if left is not None:
            pairs.append((name, left, right))
        elif right is not None:
            missing.append((name, right))
    device = seeds.device
    norm = lambda tensors: torch.stack([t.detach().norm(dtype=_wide(t)).double().to(device) for t in tensors])  # noqa: E731
    largest, bad = seeds.norm(dtype=_wide(seeds)).double(), []
    rights = norm([r for *_, r in pairs]) if pairs else None
    others = norm([r for _, r in missing]) if missing else None
    for norms in (rights, others):
        if norms is not None:
            largest = torch.maximum(largest, norms.max())
    if missing:
        bad += [n for (n, _), wrong in zip(missing, (others > 1e2 * eps * largest).tolist(), strict=True) if wrong]
    if pairs:
        errors = norm([left.to(_wide(right)) - right.to(_wide(right)) for _, left, right in pairs])
        errors[~rights.isfinite() & ~errors.isfinite()] = 0  # refused elsewhere, by the name of the layer
        allowed = torch.maximum(eps**0.5 * rights, eps**0.75 * largest).nan_to_num(nan=0.0)
        bad += [n for (n, *_), right in zip(pairs, (errors <= allowed).tolist(), strict=True) if not right]
    return bad


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def refuse_influence(
    model: nn.Module, inputs, batch: int, part: Part, seeds: Tensor, parameters: dict[str, Tensor], eps: float
) -> None:
    """Raise CoupledSamples if plain autograd itself gives other gradients for the samples alone, in the part, and
    in the whole batch. parameters: those whose gradients are in question.
    """
    names, values = list(parameters), list(parameters.values())
    expected, weighted = part.gradients(seeds, values), part.seeds(seeds)
    whole = outputs_of(model, inputs)
    placed = torch.zeros_like(seeds)
    scaled = seeds[part.rows] * part.weights.repeat_interleave(part.each).to(seeds).reshape(
        -1, *[1] * (seeds.dim() - 1)
    )
    placed.index_add_(0, part.rows, scaled)
    references = [_gradients(whole, placed, values)]
    alone: list[Tensor] = [torch.zeros_like(v) for v in values]
    for i in range(len(part.order)):
        rows = slice(i * part.each, (i + 1) * part.each)
        out = outputs_of(model, select(inputs, part.rows[rows], batch))
        if not same_outputs(out, part.outputs[rows], eps):
            raise coupled("the outputs")
        scaled = fitting(weighted[rows], out)
        for total, gradient in zip(alone, _gradients(out, scaled, values), strict=True):
            if gradient is not None:
                total += gradient
    references.append(alone)
    for found in references:
        by_name = {n: g for n, g in zip(names, found, strict=True) if g is not None}
        if differing(by_name, names, expected, weighted, eps):
            raise coupled("the gradients")

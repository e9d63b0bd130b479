"""The randomized identity by which per-sample gradients are verified.

With losses ℓ_n, random weights ε_n and some samples S of the batch, evaluated by the untouched model without the
others and in another order,

    ∇ Σ_{n∈S} ε_n ℓ_n  =  Σ_{n∈S} ε_n G_n,

where the left side is ordinary autograd and G_n is what the engine takes for the gradient of sample n in the whole
batch. A use of a parameter that was missed, rows taken for those of another sample, and samples that influence each
other all break it, parameter by parameter; so do outputs that are not those of the untouched model.

Rounding: two orders of summation agree to 4√eps of the dtype, relative to the gradient's norm; gradients that vanish by
symmetry are noise of at most 4 eps^¾ of the largest. 4√eps is 6e-8 in float64, 1.4e-3 in float32 and 0.35 in bfloat16,
in which a ReLU network's gradients differ by a tenth between batch sizes (in float32, networks of timm: by 2e-6).
Smaller differences that rounding seldom makes, `DOUBT` times eps, are settled by a copy of the model in float64.
"""

from copy import deepcopy
from random import Random

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .inputs import outputs_of, select
from .rules.normalization import CoupledSamples

WHOLE = 2**20  # samples x parameters up to which the whole batch is verified: it costs next to nothing
DOUBT = 64  # differences of outputs, in eps; of gradients, four times as many
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
        self.rows = order
        if each > 1:
            self.rows = (order.unsqueeze(1) * each + torch.arange(each, device=order.device)).flatten()
        self.outputs: Tensor | None = None

    @classmethod
    def draw(
        cls, samples: int, each: int, everything: bool, generator: Random, device: torch.device, fewest: int = 1
    ) -> "Part":
        """Random samples. everything: all of them and one twice, so that a part is never the batch itself."""
        size = samples if everything else min(samples, max(fewest, samples // SHARE))
        start = generator.randrange(samples - size + 1)
        order = generator.sample(range(start, start + size), size)
        order += order[:1] if everything else []
        weights = [generator.uniform(0.5, 1.5) * generator.choice((-1, 1)) for _ in order]
        like = {"device": device, "dtype": torch.float64}
        return cls(slice(start, start + size), torch.tensor(order, device=device), torch.tensor(weights, **like), each)

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


def same_outputs(found: Tensor, expected: Tensor, eps: float, tolerance: float | None = None) -> bool:
    """Whether outputs agree up to rounding, where both have entries."""
    tolerance = min(1e3 * eps, 4 * eps**0.5) if tolerance is None else tolerance
    if found.dim() != expected.dim():
        return False
    common = tuple(slice(min(a, b)) for a, b in zip(found.shape, expected.shape, strict=True))
    found, expected = found.detach()[common].double(), expected.detach()[common].double()
    scale = torch.maximum(found.abs().max(), expected.abs().max()) if found.numel() else 0.0
    return bool(((found - expected).abs() <= tolerance * scale).all()) if found.numel() else True


def differing(
    found: dict[str, Tensor], names: list[str], expected: list[Tensor | None], seeds: Tensor, eps: float
) -> tuple[list[str], bool, bool]:
    """The parameters whose gradients do not agree, whether any agrees less than rounding lets expect, and whether any
    expected gradient is 0, as any mistake would be as well.

    found: by name, nothing for a parameter that was not met; its tensors are overwritten.
    """
    pairs = [(n, found[n], e) for n, e in zip(names, expected, strict=True) if n in found]
    missing = [(n, e) for n, e in zip(names, expected, strict=True) if n not in found and e is not None]
    rights = [torch.zeros_like(left) if right is None else right for _, left, right in pairs]
    lefts = [left for _, left, _ in pairs]
    if any(left.dtype != right.dtype for left, right in zip(lefts, rights, strict=True)):  # sums are kept wider
        rights = [right.to(left.dtype) for left, right in zip(lefts, rights, strict=True)]
    sizes, left_out = _norms(rights, seeds), _norms([right for _, right in missing], seeds)
    if pairs:
        torch._foreach_sub_(lefts, rights)  # in place: a large network's gradients are large
    errors = _norms(lefts, seeds)
    largest = torch.cat([sizes, left_out, _norms([seeds], seeds)]).max()
    allowed = 4 * torch.maximum(eps**0.5 * sizes, eps**0.75 * largest)
    agree = (errors <= allowed) | ~(errors.isfinite() | sizes.isfinite())  # others are refused by the layer's name
    bad = [n for (n, *_), right in zip(pairs, agree.tolist(), strict=True) if not right]
    bad += [n for (n, _), norm in zip(missing, left_out.tolist(), strict=True) if norm > 1e2 * eps * float(largest)]
    doubt = bool((errors > 4 * DOUBT * eps * torch.maximum(sizes, eps**0.25 * largest)).any())
    return bad, doubt, any(e is None for e in expected) or not bool(sizes.all() and left_out.all())


def _norms(tensors: list[Tensor], like: Tensor) -> Tensor:
    """The norm of each, on the device of `like`."""
    if not tensors:
        return torch.zeros(0, dtype=torch.float64, device=like.device)
    tensors = [t.detach() for t in tensors]
    wide = [t if t.dtype in (torch.float32, torch.float64) else t.float() for t in tensors]
    return torch.stack([norm.to(like.device, torch.float64) for norm in torch._foreach_norm(wide)])


def refuse_influence(
    model: nn.Module, inputs, batch: int, part: Part, seeds: Tensor, parameters: dict[str, Tensor], eps: float
) -> None:
    """Raise CoupledSamples if plain autograd itself gives other gradients for the samples alone, in the part, and
    in the whole batch. parameters: those whose gradients are in question. Differences within twice the rounding are not
    refused: these parameters go one sample at a time, which is the definition.
    """
    eps *= 4
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
        by_name = {n: g.clone() for n, g in zip(names, found, strict=True) if g is not None}
        if differing(by_name, names, expected, weighted, eps)[0]:
            raise coupled("the gradients")


def refuse_in_double(model: nn.Module, inputs, batch: int, part: Part, seeds: Tensor | None, names: list[str]) -> None:
    """Raise CoupledSamples if a copy of the model in float64 shows that samples influence each other.

    seeds: None to compare outputs only. A model that cannot be copied or evaluated so is left to its own dtype.
    """
    try:
        copy = deepcopy(model).double()
        inputs = pytree.tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)
        again = Part(part.block, part.order, part.weights, part.each)
        again.evaluate(copy, inputs, batch)
        whole = outputs_of(copy, inputs)
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError):
        return
    eps = torch.finfo(torch.float64).eps
    if whole.dtype != torch.float64:
        return
    if not same_outputs(whole[part.rows], again.outputs, eps):
        raise coupled("the outputs")
    if seeds is not None:
        parameters = {name: p for name, p in copy.named_parameters() if name in set(names)}
        refuse_influence(copy, inputs, batch, again, seeds.double(), parameters, eps)

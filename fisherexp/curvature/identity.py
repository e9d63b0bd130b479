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

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from math import inf, isfinite
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
    """eps of the coarsest floating dtype among the tensors, in the graph of the first, and of an active autocast."""
    dtypes = [t.dtype for t in tensors if t.is_floating_point() or t.is_complex()]
    dtypes += converted(tensors[0])
    kind = tensors[0].device.type
    if torch.is_autocast_enabled(kind):
        dtypes.append(torch.get_autocast_dtype(kind))
    return max(torch.finfo(d).eps for d in dtypes)


def converted(outputs: Tensor) -> set[torch.dtype]:
    """The dtypes to which a network converts on the way to its outputs, as norms that are float32 in any network."""
    seen, stack, found = set(), [outputs.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if node.name() == "ToCopyBackward0":
                found.add(node._input_metadata[0].dtype)
            stack.extend(following for following, _ in node.next_functions)
    return {dtype for dtype in found if dtype.is_floating_point}


class Part:
    """Some samples of a batch and their outputs, with graph, from the untouched model.

    block: consecutive samples of the batch; order: the samples as they are evaluated, all of `block`, perhaps one of
    them twice; weights: ε of each in that order. A sample is `each` consecutive rows of the batch.

    Of four samples and more, two are evaluated apart from the others (`pieces`): the largest value of a batch, or
    whether it has any of some kind, is another without the sample it is due to.
    """

    def __init__(self, block: slice, order: Tensor, weights: Tensor, each: int):
        self.block, self.order, self.weights, self.each = block, order, weights, each
        self.rows = order
        if each > 1:
            self.rows = (order.unsqueeze(1) * each + torch.arange(each, device=order.device)).flatten()
        self.pieces = [self.rows] if len(order) < 4 else list(self.rows.tensor_split([-2 * each]))
        self.outputs: Tensor | None = None  # of `rows`, without graph if there are several pieces

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

    def evaluate(self, model: nn.Module, inputs, batch: int, log: AbstractContextManager | None = None) -> None:
        """A forward pass for each piece, the first with `log` open."""
        with log or nullcontext():
            self.made = [outputs_of(model, select(inputs, self.pieces[0], batch))]
        self.made += [outputs_of(model, select(inputs, rows, batch)) for rows in self.pieces[1:]]
        if any(not o.dim() or o.shape[1:] != self.made[0].shape[1:] for o in self.made[1:]):
            self.pieces = [self.rows]  # padding is left away, as far as a batch allows
            self.made = [outputs_of(model, select(inputs, self.rows, batch))]
        self.outputs = self.made[0] if len(self.made) == 1 else torch.cat([o.detach() for o in self.made])

    def sample_weights(self, like: Tensor) -> Tensor:
        """ε of each sample of `block`, in its order."""
        total = torch.zeros(self.block.stop - self.block.start, dtype=torch.float64, device=like.device)
        return total.index_add_(0, self.order - self.block.start, self.weights.to(total)).to(like.dtype)

    def weighted(self, seeds: Tensor) -> Tensor:
        """Seeds of the part's rows times ε."""
        scale = self.weights.repeat_interleave(self.each).to(seeds)
        return seeds * scale.reshape(-1, *[1] * (seeds.dim() - 1))

    def gradients(self, seeds: Tensor, parameters: list[Tensor], keep: bool = True) -> list[Tensor | None]:
        """∇ Σ ε_n ℓ_n of the parameters, for seeds of the part's rows. keep: the graph."""
        total: list[Tensor | None] = [None] * len(parameters)
        for outputs, some in self._with_seeds(seeds):
            found = _gradients(outputs, some, parameters, keep)
            total = [a if b is None else b if a is None else a + b for a, b in zip(total, found, strict=True)]
        return total

    def _with_seeds(self, seeds: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(outputs, seeds times ε) of each piece."""
        sizes = [len(rows) for rows in self.pieces]
        for outputs, some in zip(self.made, self.weighted(seeds).split(sizes), strict=True):
            yield outputs, fitting(some, outputs)

    def hand_on(self, seeds: Tensor, parameters: dict[str, Tensor], take: Callable[[str, Tensor], None]) -> None:
        """`take(name, gradient)` of these gradients, of one piece after the other and one parameter at a time: those of
        a large network are never there at once. Not called for a parameter that the outputs do not depend on. The graph
        is used up: `evaluate` anew for more.
        """

        def hook(name):
            def forget(gradient):
                take(name, gradient.to_dense())  # an embedding's may be sparse
                return gradient if gradient.is_sparse else gradient.new_zeros(()).expand_as(gradient)

            return forget

        hooks = [p.register_hook(hook(name)) for name, p in parameters.items()]
        try:
            for outputs, some in self._with_seeds(seeds):
                _gradients(outputs, some, list(parameters.values()), keep=False)
        finally:
            for handle in hooks:
                handle.remove()


def _gradients(outputs: Tensor, seeds: Tensor, parameters: list[Tensor], keep: bool = True) -> list[Tensor | None]:
    if not outputs.requires_grad:
        return [None] * len(parameters)
    return torch.autograd.grad(outputs, parameters, seeds.to(outputs.dtype), retain_graph=keep, allow_unused=True)


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
    return output_error(found, expected) <= tolerance(eps)


def tolerance(eps: float) -> float:
    """What `output_error` may be by rounding."""
    return min(1e3 * eps, 4 * eps**0.5)


def output_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference of outputs relative to the largest entry, where both have entries; NaN counts as ∞."""
    if found.dim() != expected.dim():
        return inf
    common = tuple(slice(min(a, b)) for a, b in zip(found.shape, expected.shape, strict=True))
    found, expected = found.detach()[common], expected.detach()[common]
    if not found.numel():
        return 0.0
    if found.dtype != torch.float32 or expected.dtype != torch.float32:  # else as they are: logits of tokens are many
        found, expected = found.double(), expected.double()
    scale, error = float(torch.maximum(found.abs().max(), expected.abs().max())), float((found - expected).abs().max())
    if not isfinite(error):
        return inf
    return error / scale if error else 0.0


def differing(sizes: dict[str, Tensor], errors: dict[str, Tensor], largest: Tensor, eps: float) -> tuple[list, bool]:
    """The parameters whose gradients do not agree, and whether any agrees less than rounding lets expect.

    sizes: norm of the gradient that is expected, by name; errors: norm of what it differs by from the one found, for
    parameters that were met; largest: norm of the seeds.
    """

    def together(norms: Iterable[Tensor]) -> Tensor:  # parameters may lie on several devices
        return torch.stack([largest, *(n.to(largest.device) for n in norms)])

    met, missing = list(errors), [name for name in sizes if name not in errors]
    known = together(sizes.get(name, largest.new_zeros(())) for name in met)[1:]
    wrong = together(errors[name] for name in met)[1:]
    left_out = together(sizes[name] for name in missing)
    largest = torch.cat([known, left_out]).max()
    allowed = 4 * torch.maximum(eps**0.5 * known, eps**0.75 * largest)
    agree = (wrong <= allowed) | ~(wrong.isfinite() | known.isfinite())  # others are refused by the layer's name
    bad = [name for name, right in zip(met, agree.tolist(), strict=True) if not right]
    bad += [n for n, size in zip(missing, left_out[1:].tolist(), strict=True) if size > 1e2 * eps * float(largest)]
    return bad, bool((wrong > 4 * DOUBT * eps * torch.maximum(known, eps**0.25 * largest)).any())


def norm(tensor: Tensor) -> Tensor:
    """In float64, whatever the tensor's dtype."""
    tensor = tensor.detach()
    wide = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    return torch.linalg.vector_norm(wide).double()


def _differing(names: list[str], found: list[Tensor | None], expected: list[Tensor | None], seeds: Tensor, eps: float):
    """`differing` of gradients; None: a parameter that was not met."""
    sizes = {n: norm(e) for n, e in zip(names, expected, strict=True) if e is not None}
    pairs = [(n, f, e) for n, f, e in zip(names, found, expected, strict=True) if f is not None]
    errors = {n: norm(f if e is None else f - e.to(f.dtype)) for n, f, e in pairs}
    return differing(sizes, errors, norm(seeds), eps)[0]


def refuse_influence(
    model: nn.Module, inputs, batch: int, part: Part, seeds: Tensor, parameters: dict[str, Tensor], eps: float
) -> None:
    """Raise CoupledSamples if plain autograd itself gives other gradients for the samples alone, in the part, and
    in the whole batch. seeds: of the part's rows; parameters: those whose gradients are in question. Differences within
    twice the rounding are not refused: these parameters go one sample at a time, which is the definition.
    """
    eps *= 4
    names, values = list(parameters), list(parameters.values())
    expected, weighted = part.gradients(seeds, values), part.weighted(seeds)
    whole = outputs_of(model, inputs)
    placed = seeds.new_zeros(whole.shape).index_add_(0, part.rows, weighted)
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
        if _differing(names, found, expected, weighted, eps):
            raise coupled("the gradients")


def refuse_in_double(model: nn.Module, inputs, batch: int, part: Part, seeds: Tensor | None, names: list[str]) -> bool:
    """Raise CoupledSamples if a copy of the model in float64 shows that samples influence each other; whether it could
    tell. A model that cannot be copied or evaluated so is left to its own dtype.

    seeds: None to compare outputs only.
    """
    try:
        copy = deepcopy(model).double()
        inputs = pytree.tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)
        again = Part(part.block, part.order, part.weights, part.each)
        again.evaluate(copy, inputs, batch)
        whole = outputs_of(copy, inputs)
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError):
        return False
    eps = torch.finfo(torch.float64).eps
    if rounding(whole) > eps:
        return False
    if not same_outputs(whole[part.rows], again.outputs, eps):
        raise coupled("the outputs")
    if seeds is not None:
        parameters = {name: p for name, p in copy.named_parameters() if name in set(names)}
        refuse_influence(copy, inputs, batch, again, seeds.double(), parameters, eps)
    return True

"""Any other operation y = f(w, x): its vector-Jacobian product, mapped over samples by `torch.func`.

Exact for every operation whose row n of the result depends on row n of its inputs alone. Slower than a rule:
per-sample gradients are formed. If the operation cannot be mapped, samples are taken one by one.
"""

import torch
from torch import Tensor

from ..layout import tensors_in
from .base import Call, Unsupported, Use


class Fallback(Use):
    """One call of an operation without a rule."""

    def __init__(self, call: Call, *args, **kwargs):
        found = {id(t): t for t in tensors_in((*args, *kwargs.values())) if id(t) in call.handles}
        super().__init__(call, **{f"p{i}": t for i, t in enumerate(found.values())})
        name = getattr(call.func, "__name__", "")
        if name.startswith("__i") or (name.endswith("_") and not name.endswith("__")):
            raise Unsupported  # an input would be overwritten
        if any(axis and not axis.outer for axis in call.step.inputs):
            raise Unsupported
        self.position = {i: f"p{k}" for k, i in enumerate(found)}
        self.args, self.kwargs = args, kwargs
        self.versions = [t._version for t in tensors_in((*args, *kwargs.values()))]

    def release(self):
        self.args = self.kwargs = None

    def _templates(self):
        """Arguments with parameters replaced by slot names and data tensors by samples-first tensors."""
        axes = iter(self.call.step.inputs)
        data: list[Tensor] = []

        def visit(item):
            if isinstance(item, Tensor):
                axis = next(axes)
                if id(item) in self.position:
                    return _Slot(self.position[id(item)])
                if axis is None:
                    return item.detach()
                if item.shape[axis.dim] % self.call.batch:
                    raise Unsupported
                each = item.shape[axis.dim] // self.call.batch
                data.append(item.detach().unflatten(axis.dim, (self.call.batch, each)).movedim(axis.dim, 0))
                return _Data(len(data) - 1)
            return type(item)(map(visit, item)) if type(item) in (list, tuple) else item

        args = [visit(a) for a in self.args]
        kwargs = {k: visit(v) for k, v in self.kwargs.items()}
        return args, kwargs, data

    def per_sample(self, slot, g, rows):
        if [t._version for t in tensors_in((*self.args, *self.kwargs.values()))] != self.versions:
            raise RuntimeError(f"an input of {self.name} was changed in place after its use")
        args, kwargs, data = self._templates()
        values = {k: h.value for k, h in self.slots.items()}
        out_axis = self.call.step.output

        def product(grad: Tensor, *sample: Tensor) -> Tensor:
            def operation(parameter: Tensor) -> Tensor:
                fill = {**values, slot: parameter}
                put = lambda item: _put(item, fill, sample)  # noqa: E731
                return self.call.func(*map(put, args), **{k: put(v) for k, v in kwargs.items()})

            out, pull = torch.func.vjp(operation, values[slot])
            return pull(grad.reshape(out.shape).to(out.dtype))[0]

        # Give each sample's gradient the layout of a result for a batch of one.
        grads = g[rows]
        grads = grads.movedim(0, out_axis.dim).unsqueeze(out_axis.dim).movedim(out_axis.dim + 1, 0)
        samples = [d[rows] for d in data]
        try:
            return torch.func.vmap(product)(grads, *samples).to(g.dtype)
        except RuntimeError:
            each = [product(grads[i], *(s[i] for s in samples)) for i in range(grads.shape[0])]
            return torch.stack(each).to(g.dtype)


class _Slot(str):
    """Place of a parameter in the arguments."""


class _Data(int):
    """Place of a data tensor in the arguments."""


def _put(item, values: dict[str, Tensor], sample: tuple[Tensor, ...]):
    if isinstance(item, _Slot):
        return values[item]
    if isinstance(item, _Data):
        return sample[item]
    return type(item)(_put(i, values, sample) for i in item) if type(item) in (list, tuple) else item

"""A weight matrix as it is stored: quantized, with low-rank factors, or both. And files of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .format import Format, num_bytes
from .integer import Integer
from .kept import Kept
from .normal_float import NormalFloat
from .sparse import Masked, Plain, TwoFour

FORMATS = {form.__name__: form for form in (Integer, NormalFloat, Plain, TwoFour, Masked, Kept)}


@dataclass(frozen=True)
class StoredWeight:
    """W ≈ (Q + B A) diag(λ)⁻¹ of shape (n, m).

    form, parts: Q and the tensors that stand for it; None and nothing for Q = 0. up, down: B (n, r), A (r, m).
    smooth: λ (m,), by which the inputs are divided before Q and A see them.
    """

    shape: tuple[int, int]
    form: Format | None
    parts: Mapping[str, Tensor]
    up: Tensor | None = None
    down: Tensor | None = None
    smooth: Tensor | None = None

    @property
    def rank(self) -> int:
        return 0 if self.down is None else len(self.down)

    def quantized(self) -> Tensor:
        """Q (n, m), float64."""
        some = next(tensor for tensor in (self.up, *self.parts.values()) if tensor is not None)
        if self.form is None:
            return torch.zeros(self.shape, dtype=torch.float64, device=some.device)
        return self.form.decode(self.parts, self.shape)

    def weight(self) -> Tensor:
        """What stands for W (n, m), float64."""
        found = self.quantized()
        if self.up is not None:
            found = found + self.up.double() @ self.down.double()
        return found if self.smooth is None else found / self.smooth.double()

    @property
    def num_bytes(self) -> int:
        """Bytes of all its tensors."""
        return num_bytes(self.tensors())

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is stored, by name."""
        more = {"up": self.up, "down": self.down, "smooth": self.smooth}
        return {**self.parts, **{name: tensor for name, tensor in more.items() if tensor is not None}}

    def about(self) -> dict[str, Any]:
        """With `tensors`, all there is to know; plain containers."""
        return {"shape": list(self.shape), "form": None if self.form is None else _described(self.form)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> "StoredWeight":
        """The inverse of `tensors` and `about`."""
        parts = {name: tensor for name, tensor in tensors.items() if name not in ("up", "down", "smooth")}
        more = {name: tensors.get(name) for name in ("up", "down", "smooth")}
        form = None if about["form"] is None else _made(about["form"])
        return cls(tuple(about["shape"]), form, parts, **more)


def save(layers: Mapping[str, StoredWeight], path: str | PathLike) -> None:
    """Write layers by name into one safetensors file, which says by itself how it is read."""
    tensors = {f"{name}/{part}": t.cpu().contiguous() for name, s in layers.items() for part, t in s.tensors().items()}
    save_file(tensors, path, {"layers": json.dumps({name: stored.about() for name, stored in layers.items()})})


def load(path: str | PathLike) -> dict[str, StoredWeight]:
    """The layers that `save` wrote."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["layers"])
        tensors: dict[str, dict[str, Tensor]] = {name: {} for name in about}
        for key in file.keys():  # noqa: SIM118 - no mapping
            name, _, part = key.rpartition("/")
            tensors[name][part] = file.get_tensor(key)
    return {name: StoredWeight.of(tensors[name], about[name]) for name in about}


def _described(form: Format) -> dict[str, Any]:
    options = {k: _described(v) if isinstance(v, Format) else v for k, v in vars(form).items()}
    return {"format": type(form).__name__, **options}


def _made(described: Mapping[str, Any]) -> Format:
    options = {k: _made(v) if isinstance(v, Mapping) else v for k, v in described.items() if k != "format"}
    return FORMATS[described["format"]](**options)

"""A model as a file of entropy-coded integers.

Parameters are whole multiples of 2^-b, coded together by one exponential Golomb code whose table of symbols is in the
file; buffers (running statistics) are in it as they are.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fisherexp.methods.compression.exp_golomb import decode, encode, ranked
from fisherexp.methods.compression.stored_file import packed, unpacked


@torch.no_grad()
def round_to_grid(model: nn.Module, fraction_bits: int) -> None:
    """Round all parameters to the nearest multiple of 2^-fraction_bits, halves to even. In place."""
    for parameter in model.parameters():
        # As the file will hold it: without a negative zero.
        parameter.copy_((parameter * 2**fraction_bits).round() / 2**fraction_bits + 0.0)


def coded(model: nn.Module, fraction_bits: int) -> bytes:
    """The file of a model whose parameters are on the grid. Raises ValueError if they are not, or beyond four bytes."""
    parameters = {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}
    flat = np.concatenate([parameter.double().flatten().numpy() for parameter in parameters.values()])
    symbols = flat * 2**fraction_bits
    if not np.array_equal(symbols, np.round(symbols)):
        raise ValueError(f"parameters are no multiples of 2^-{fraction_bits}: round them first")
    if (largest := np.abs(symbols).max(initial=0)) > np.iinfo(np.int32).max:
        raise ValueError(
            f"a parameter of {largest / 2**fraction_bits:.3g} is {largest:.3g} times 2^-{fraction_bits}, "
            "beyond the four bytes of a symbol"
        )
    table, ranks = ranked(symbols.astype(np.int32))
    buffers = buffers_of(model)
    header = {
        "fraction_bits": fraction_bits,
        "parameters": {name: list(parameter.shape) for name, parameter in parameters.items()},
        "buffers": {name: [str(buffer.dtype)[6:], list(buffer.shape)] for name, buffer in buffers.items()},
        **tied_header(model),
    }
    return packed(header, encode(ranks), table.tobytes(), *map(raw_bytes, buffers.values()))


def decoded(stored: bytes) -> dict[str, Tensor]:
    """Parameters and buffers by name, bit for bit those of the model that was coded."""
    header, (code, table, *buffers) = unpacked(stored)
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in header["parameters"].values()]
    symbols = np.frombuffer(table, dtype=np.int32)[decode(code, sum(sizes))]
    values = torch.from_numpy(symbols / 2 ** header["fraction_bits"]).float()
    parts = zip(header["parameters"].items(), values.split(sizes), strict=True)
    found = {name: part.view(shape) for (name, shape), part in parts} | raw_tensors(header["buffers"], buffers)
    return with_tied(found, header)


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """What a state dict holds besides parameters."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {name: tensor.cpu() for name, tensor in model.state_dict().items() if name not in parameters}


def tied_header(model: nn.Module) -> dict[str, dict[str, str]]:
    """What a header says of parameters that have more than one name: other name -> the first one, under which they are
    stored. Nothing where there are none."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    names = {name: first[id(parameter)] for name, parameter in model.named_parameters(remove_duplicate=False)}
    tied = {name: stored for name, stored in names.items() if name != stored}
    return {"tied": tied} if tied else {}


def with_tied(tensors: dict[str, Tensor], header: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors by name, and by all names that `tied_header` said."""
    return tensors | {name: tensors[stored] for name, stored in header.get("tied", {}).items()}


def raw_bytes(tensor: Tensor) -> bytes:
    """Those of its numbers, as they are."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def raw_tensors(described: dict[str, list], blocks: list[bytes]) -> dict[str, Tensor]:
    """Tensors from their bytes, given {name: [type, shape]}."""
    return {
        name: torch.frombuffer(bytearray(block), dtype=getattr(torch, kind)).view(shape)
        for (name, (kind, shape)), block in zip(described.items(), blocks, strict=True)
    }

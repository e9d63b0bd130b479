"""A model with quantized matrices as a file: integers of b bits, a unit for each row, all else as it is."""

import numpy as np
import torch
from torch import Tensor

from fisherexp.methods.compression.entropy_coding import raw_tensors
from fisherexp.methods.compression.learned_grids import LSQ, StatsQ
from fisherexp.methods.compression.stored_file import packed, unpacked


def pack_bits(numbers: np.ndarray, bits: int) -> bytes:
    """Numbers (n,) of 0 … 2^bits - 1 side by side, the highest bit first, filled up with zeros to whole bytes."""
    digits = numbers[:, None].astype(np.int64) >> np.arange(bits)[::-1] & 1
    return np.packbits(digits.astype(np.uint8)).tobytes()


def unpack_bits(block: bytes, bits: int, count: int) -> np.ndarray:
    """The `count` numbers."""
    digits = np.unpackbits(np.frombuffer(block, dtype=np.uint8), count=count * bits).reshape(count, bits)
    return digits @ (1 << np.arange(bits)[::-1])


@torch.no_grad()
def stored(matrices: dict[str, tuple[Tensor, StatsQ | LSQ]], rest: dict[str, Tensor]) -> bytes:
    """matrices: by name, (m, n) and its grid. rest: tensors that are stored as they are."""
    header = {"matrices": {}, "rest": {}}
    blocks = []
    for name, (matrix, grid) in matrices.items():
        codes = (grid.position(matrix).round() + grid.half).cpu().numpy()
        header["matrices"][name] = [list(matrix.shape), grid.bits, grid.offset]
        blocks += [pack_bits(codes.ravel(), grid.bits), grid.unit(matrix).cpu().numpy().tobytes()]
    for name, tensor in rest.items():
        header["rest"][name] = [str(tensor.dtype)[6:], list(tensor.shape)]
        blocks.append(tensor.detach().cpu().contiguous().numpy().tobytes())
    return packed(header, *blocks)


def loaded(file: bytes) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(matrices as the layers compute with them, the rest), by name."""
    header, blocks = unpacked(file)
    matrices = {}
    for number, (name, (shape, bits, offset)) in enumerate(header["matrices"].items()):
        codes = torch.from_numpy(unpack_bits(blocks[2 * number], bits, shape[0] * shape[1])).view(shape).float()
        unit = torch.frombuffer(bytearray(blocks[2 * number + 1]), dtype=torch.float32)[:, None]
        matrices[name] = unit * (codes - 2 ** (bits - 1) + offset)
    return matrices, raw_tensors(header["rest"], blocks[2 * len(matrices) :])

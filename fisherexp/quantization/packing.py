"""Numbers of a few bits as bytes, without a bit between them."""

import torch
from torch import Tensor


def pack(codes: Tensor, bits: int) -> Tensor:
    """Whole numbers 0 … 2^bits - 1, of any shape, as uint8 (⌈n · bits / 8⌉,): one after the other, lowest bit first.

    Raises ValueError for numbers that do not fit.
    """
    flat = codes.flatten()
    if flat.numel() and (int(flat.min()) < 0 or int(flat.max()) >= 2**bits):
        raise ValueError(f"{bits} bits hold 0 to {2**bits - 1}, not {int(flat.min())} to {int(flat.max())}")
    places = torch.arange(bits, device=flat.device)
    stream = ((flat.long()[:, None] >> places) & 1).to(torch.uint8).flatten()
    stream = torch.nn.functional.pad(stream, (0, -len(stream) % 8)).view(-1, 8)
    return (stream << torch.arange(8, device=flat.device, dtype=torch.uint8)).sum(dim=1, dtype=torch.uint8)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` numbers that `pack` was given, int64 (count,)."""
    stream = (packed[:, None] >> torch.arange(8, device=packed.device, dtype=torch.uint8)) & 1
    codes = stream.flatten()[: count * bits].view(count, bits).long()
    return (codes << torch.arange(bits, device=packed.device)).sum(dim=1)

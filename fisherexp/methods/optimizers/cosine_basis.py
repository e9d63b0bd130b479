"""Orthonormal bases of fixed directions, and the discrete cosine transforms by the fast Fourier transform.

The DCT-II of x (n,) is Q x with Q[i, j] = √(2/n) cos(π i (2j + 1) / 2n), the first row times √½; Q is orthogonal, and
the DCT-III is its transpose. By one FFT of length n: Makhoul, IEEE Transactions on Acoustics, Speech, and Signal
Processing 28(1), 1980.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Basis = Literal["dct2", "dct3", "random", "identity"]


def basis_rows(kind: Basis, n: int, like: Tensor) -> Tensor:
    """(n, n): an orthonormal basis, one vector a row, in the precision and on the device of `like`.

    dct2: the rows of Q, cosines; dct3: its columns; random: of a fixed seed; identity: the coordinates themselves.
    """
    if kind == "identity":
        rows = torch.eye(n, dtype=torch.float64)
    elif kind == "random":
        drawn = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        rows = torch.linalg.qr(drawn).Q
    else:
        i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
        rows = math.sqrt(2 / n) * torch.cos(math.pi * i * (2 * j + 1) / (2 * n))
        rows[0] *= math.sqrt(0.5)
        rows = rows if kind == "dct2" else rows.mT.contiguous()
    return rows.to(like)


def dct2(x: Tensor) -> Tensor:
    """Q x of every column of x (n, …), in O(n log n)."""
    n = len(x)
    spectrum = torch.fft.fft(torch.cat([x[::2], x[1::2].flip(0)]), dim=0)
    out = (spectrum * _turns(spectrum)).real * math.sqrt(2 / n)
    out[0] *= math.sqrt(0.5)
    return out


def dct3(x: Tensor) -> Tensor:
    """Qᵀ x of every column of x (n, …), the inverse of `dct2`."""
    n = len(x)
    scaled = x * math.sqrt(n / 2)
    scaled[0] *= math.sqrt(2)
    mirrored = torch.cat([torch.zeros_like(x[:1]), scaled[1:].flip(0)])
    spectrum = torch.complex(scaled, -mirrored)
    order = torch.fft.ifft(spectrum * _turns(spectrum).conj(), dim=0).real
    out, half = torch.empty_like(x), (n + 1) // 2
    out[::2], out[1::2] = order[:half], order[half:].flip(0)
    return out


def _turns(spectrum: Tensor) -> Tensor:
    """exp(-iπk/2n), k = 0 … n-1, shaped to multiply the rows of a spectrum (n, …)."""
    n = len(spectrum)
    angle = -math.pi / (2 * n) * torch.arange(n, dtype=spectrum.real.dtype, device=spectrum.device)
    return torch.polar(torch.ones_like(angle), angle).reshape(-1, *[1] * (spectrum.ndim - 1))

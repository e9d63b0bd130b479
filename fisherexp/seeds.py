"""Random streams by name: adding one never shifts another (after DomainBed's per-hyperparameter seeds)."""

import hashlib


def derive(*key: str | int) -> int:
    """A 32-bit seed that is a function of `key` alone, e.g. derive("order", seed, epoch).

    The key is hashed: PyTorch's CPU generator keeps 32 bits of its seed, so sums of seed and epoch would collide.
    """
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=4).digest(), "little")


def generator(*key: str | int):
    """A fresh torch.Generator on the CPU, seeded by `derive(*key)`."""
    import torch

    return torch.Generator().manual_seed(derive(*key))

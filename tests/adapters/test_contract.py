"""What the contract of an adapter carries: other kinds of methods in a few lines, and what applying factors costs."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fisherexp.adapters import LoRA, after_step, inject, merge, num_trainable
from fisherexp.adapters.adapter import Adapter


class Spectral(Adapter):
    """The leading singular values are trained (SVFit)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        u, s, vt = torch.linalg.svd(weight, full_matrices=False)
        self.register_buffer("u", u[:, :rank].contiguous())
        self.register_buffer("vt", vt[:rank].contiguous())
        self.register_buffer("start", s[:rank])
        self.values = nn.Parameter(s[:rank].clone())

    def factors(self):
        return self.u * (self.values - self.start), self.vt

    def weight(self, weight):
        left, right = self.factors()
        return weight + left @ right


class Masked(Adapter):
    """The largest entries are trained; after each step they are chosen anew, and what was learned stays."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.count = rank * sum(weight.shape)
        self.delta = nn.Parameter(torch.zeros_like(weight))
        self.register_buffer("learned", torch.zeros_like(weight))
        self.register_buffer("mask", self.largest(weight))

    def largest(self, weight: Tensor) -> Tensor:
        mask = torch.zeros_like(weight).flatten()
        mask[weight.abs().flatten().topk(self.count).indices] = 1
        return mask.view_as(weight)

    def weight(self, weight):
        return weight + self.learned + self.mask * self.delta

    @torch.no_grad()
    def after_step(self, step, total):
        self.learned += self.mask * self.delta
        self.delta.zero_()
        self.mask.copy_(self.largest(self.learned))

    def num_trainable(self):
        return int(self.mask.sum())


class Sharded(Adapter):
    """One matrix for all shards of the inputs (MiSS)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.shard = nn.Parameter(weight.new_zeros(rank, len(weight)))
        self.register_buffer("places", torch.eye(rank).to(weight).repeat(1, weight.shape[1] // rank))

    def factors(self):
        return self.shard.T, self.places

    def weight(self, weight):
        return weight + self.shard.T @ self.places


COUNTS = {Spectral: 2 + 2, Masked: 2 * (6 + 8) + 2 * (4 + 6), Sharded: 2 * 6 + 2 * 4}


@pytest.mark.parametrize("kind", COUNTS)
def test_a_method_of_another_kind_is_one_small_class(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    x = torch.randn(16, 8, dtype=torch.float64)
    before = model(x).detach()
    inject(model, "linear", partial(kind, rank=2))
    torch.testing.assert_close(model(x), before)
    assert num_trainable(model) == COUNTS[kind]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-3)
    for step in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        after_step(model, step, 3)
    assert num_trainable(model) == COUNTS[kind]
    adapted = model(x).detach()
    assert adapted.square().sum() < before.square().sum()
    torch.testing.assert_close(merge(model)(x), adapted)


@pytest.mark.parametrize("rows", [None, [(0, 16), (32, 48)]])
def test_factors_spare_the_gradient_of_the_weight(rows):
    """Forward pass and gradients of a frozen layer are two products of its size, beside those of the factors."""
    samples, n, m, r = 64, 32, 48, 2
    whole, flops = 2 * samples * m * n, {}
    for factored in (True, False):
        model = nn.Linear(n, m)
        inject(model, "linear", partial(LoRA, rank=r), factored=factored, rows={"": rows} if rows else None)
        with FlopCounterMode(display=False) as counter:
            model(torch.randn(samples, n, requires_grad=True)).sum().backward()
        flops[factored] = counter.get_total_flops()
    adapters = 1 if rows is None else len(rows)
    assert flops[True] == 2 * whole + 3 * 2 * samples * adapters * r * (m + n)
    assert flops[False] > 3 * whole

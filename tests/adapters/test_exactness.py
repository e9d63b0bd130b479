"""What every adapter must keep: identity, exact merging, frozen bytes, counts, state dicts and ranks."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from fisherexp.adapters import (
    EVA,
    FILA,
    LIFT,
    PST,
    SALT,
    SORSA,
    SST,
    AdaLoRA,
    Bone,
    DoRA,
    LoRA,
    Maestro,
    MagnitudeMask,
    MiSS,
    PiSSA,
    RandomMask,
    SaRA,
    SoKA,
    SoMA,
    SVFit,
    adapter_state_dict,
    adapters,
    after_backward,
    after_step,
    forget_outside,
    inject,
    load_adapter_state_dict,
    merge,
    num_trainable,
    penalty,
)

RANK = 2


class Net(nn.Module):
    """An embedding, linear layers and a convolution, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.mlp = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.head = nn.Linear(6 * 8, 5)

    def forward(self, tokens):
        x = self.mlp(self.tokens(tokens))
        return self.head(self.conv(x[:, None]).mean(2).flatten(1))


def directions(weight, rank):
    """Orthonormal rows, other ones each time."""
    return torch.linalg.qr(torch.randn(weight.shape[1], rank, dtype=weight.dtype))[0].T


def eva(weight, rank, **options):
    return EVA(weight, directions(weight, rank), rank=rank, **options)


def sara(weight, rank):
    """As many entries as the other masks have: the threshold lies above the last of them."""
    budget = min(rank * sum(weight.shape), weight.numel())
    return SaRA(weight, threshold=weight.abs().flatten().kthvalue(budget).values.item() * (1 + 1e-6))


def salt(m, n):
    top = max(1, min(m, n) // 2)
    return 2 * top + 2 * RANK * (min(m, n) - top)


def soka(m, n):
    """8 = 2 · 4, 11 = 1 · 11, 6 = 2 · 3, 9 = 3 · 3, 12 = 3 · 4, 5 = 1 · 5, 48 = 6 · 8: small for m, large for n."""
    (m1, m2), (n1, n2) = SMALL_FIRST[m], reversed(SMALL_FIRST[n])
    return RANK * (m1 * n1 + m2 * n2)


SMALL_FIRST = {5: (1, 5), 6: (2, 3), 8: (2, 4), 9: (3, 3), 11: (1, 11), 12: (3, 4), 48: (6, 8)}
SHAPES = {"tokens": (8, 11), "conv": (6, 9), "mlp.0": (12, 8), "mlp.2": (8, 12), "head": (5, 48)}
METHODS = {
    "lora": (partial(LoRA, alpha=3), lambda m, n: RANK * (m + n), RANK),
    "rslora": (partial(LoRA, alpha=3, rank_stabilized=True), lambda m, n: RANK * (m + n), RANK),
    "gaussian": (partial(LoRA, init="gaussian"), lambda m, n: RANK * (m + n), RANK),
    "lookup": (partial(LoRA, init="lookup"), lambda m, n: RANK * (m + n), RANK),
    "dora": (partial(DoRA, alpha=3), lambda m, n: RANK * (m + n) + m, None),  # rows are scaled: any rank
    "pissa": (partial(PiSSA, alpha=3), lambda m, n: RANK * (m + n), 2 * RANK),
    "soma": (partial(SoMA, alpha=3), lambda m, n: RANK * (m + n), 2 * RANK),
    "miss": (MiSS, lambda m, n: RANK * m, RANK),
    "miss_tiled": (partial(MiSS, tile=1), lambda m, n: RANK, 1),  # all rows of the update are the same
    "bat": (Bone, lambda m, n: RANK * m, None),  # blocks of W are mixed: any rank
    "adalora": (partial(AdaLoRA, target=1, alpha=3), lambda m, n: RANK * (m + n + 1), RANK),
    "eva": (partial(eva, alpha=3), lambda m, n: RANK * (m + n), RANK),
    "sorsa": (partial(SORSA, alpha=3), lambda m, n: RANK * (m + n + 1), 2 * RANK),
    "svfit": (SVFit, lambda m, n: RANK, RANK),
    "salt": (partial(SALT, share=0.5), salt, None),  # every singular value: any rank
    "soka": (lambda weight, rank: SoKA(weight, terms=rank), soka, None),  # rank A times rank B
    "random_mask": (RandomMask, lambda m, n: min(RANK * (m + n), m * n), None),  # masks: any rank
    "magnitude_mask": (MagnitudeMask, lambda m, n: min(RANK * (m + n), m * n), None),
    "lift": (partial(LIFT, every=5), lambda m, n: min(RANK * (m + n), m * n), None),
    "sara": (sara, lambda m, n: min(RANK * (m + n), m * n), None),
    "fila": (lambda w, rank: FILA(w, rank, 3, importance=w.abs().sum(1)), lambda m, n: RANK * (m + n), 2 * RANK),
}
METHODS |= {
    "pst": (partial(PST, score_rank=RANK, sparsity=0.5), lambda m, n: (2 * RANK + 1) * (m + n), None),
    "sst": (partial(SST, every=3), lambda m, n: min(m, n) + RANK * (m + n), None),  # other vectors in turn: any rank
    "maestro": (lambda w, rank: Maestro(w, 1e-3), lambda m, n: min(m, n) * (m + n), None),
}
LAYERS = {"bat": "mlp"}  # blocks of two fill these alone; the others are all adapted
RECHOSEN = {"lift", "sara"}


def inputs():
    return torch.randint(11, (16, 7)), torch.randint(5, (16,))


def train(model, steps=20):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(steps):
        x, y = inputs()
        optimizer.zero_grad()
        (nn.functional.cross_entropy(model(x), y) + penalty(model)).backward()
        after_backward(model, step, steps)
        optimizer.step()
        after_step(model, step, steps)
        forget_outside(optimizer, model)


@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_keeps_its_promises(method, dtype, factored):
    torch.manual_seed(0)
    make, count, bound = METHODS[method]
    model = Net().to(dtype)
    base, x = copy.deepcopy(model), inputs()[0]
    before = model(x).detach()
    targets = LAYERS.get(method, "")
    layers = inject(model, targets, partial(make, rank=RANK), factored=factored)
    assert set(layers) == {name for name in SHAPES if name.startswith(targets)}
    at_init, merged = (1e-5, 1e-5) if dtype == torch.float32 else (1e-10, 1e-11)
    # 1. The identity at the start.
    assert (model(x) - before).abs().max() <= at_init * before.abs().max()
    # 4. As many trained numbers as the formula says, and nothing else is trained.
    expected = sum(count(*SHAPES[name]) for name in layers)
    carried = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert num_trainable(model) == expected
    # A mask that changes has a dense tensor behind it.
    assert carried == (sum(m * n for m, n in SHAPES.values()) if method in RECHOSEN else expected)
    train(model)
    after = model(x).detach()
    moved = 1e-3 if method == "adalora" else 1e-2  # whose vectors begin at a length of 0.02
    assert (after - before).abs().max() > moved  # control: training did something
    # 3. What was frozen has the same bytes under the same names.
    state = model.state_dict()
    for name, tensor in base.state_dict().items():
        assert torch.equal(state[name], tensor), name
    # 5. A state dict, loaded beside the original weights, gives the same bits.
    other = copy.deepcopy(base)
    inject(other, targets, partial(make, rank=RANK), factored=factored)
    assert not torch.equal(other(x), after)
    load_adapter_state_dict(other, {name: tensor.clone() for name, tensor in adapter_state_dict(model).items()})
    assert torch.equal(other(x), after)
    # 2. Merged, the model is plain again and computes the same.
    adapted = copy.deepcopy(model)
    assert merge(model) is model
    assert [type(module) for module in model.modules()] == [type(module) for module in base.modules()]
    assert model.state_dict().keys() == base.state_dict().keys()
    assert (model(x) - after).abs().max() <= merged * after.abs().max()
    # A copy shares nothing with what was merged.
    assert torch.equal(adapted(x), after)
    # 6. The rank of the update.
    ranks = []
    for name, layer in layers.items():
        moved = (layer.weight - base.get_submodule(name).weight).flatten(1).double()
        values = torch.linalg.svdvals(moved)
        noise = 1e-5 if dtype == torch.float32 else 1e-12
        rank = int((values > noise * base.get_submodule(name).weight.norm()).sum())
        ranks.append(rank)
        if bound is not None:
            assert rank <= bound, (name, values)
    if method == "adalora":  # which shares out as many ranks as there are layers
        assert sum(ranks) == len(layers)
    else:
        assert all(ranks)


def test_the_penalty_and_hooks_are_those_of_all_adapters():
    class Decayed(LoRA):
        seen, across = [], []

        def penalty(self):
            return self.down.square().sum()

        def after_backward(self, step, total):
            self.seen.append(("backward", step, total))

        def after_step(self, step, total):
            self.seen.append(("step", step, total))

        @classmethod
        def after_step_across(cls, adapters, step, total):
            cls.across.append((len(adapters), step, total))

    model = Net().double()
    assert penalty(model) == 0
    inject(model, "mlp", partial(Decayed, rank=1))
    inject(model, "head", partial(LoRA, rank=1))
    torch.testing.assert_close(penalty(model), sum(a.down.square().sum() for a in adapters(model)[:2]))
    penalty(model).backward()
    after_backward(model, 3, 9)
    after_step(model, 3, 9)
    assert Decayed.seen == [("backward", 3, 9)] * 2 + [("step", 3, 9)] * 2
    assert Decayed.across == [(2, 3, 9)]


@pytest.mark.parametrize("method", METHODS)
def test_the_weight_is_formed_once_a_pass_however_many_tokens(method, monkeypatch):
    model = nn.Sequential(nn.Linear(8, 12)).double()
    layers = inject(model, "linear", partial(METHODS[method][0], rank=RANK))
    (adapter,) = layers["0"].adapters
    formed, weight = [], adapter.weight
    monkeypatch.setattr(adapter, "weight", lambda *args: formed.append(1) or weight(*args))
    for tokens in (1, 50):
        model(torch.randn(4, tokens, 8, dtype=torch.float64)).sum().backward()
    factored = adapter.factors() or adapter.scaled_factors(layers["0"].matrix)
    assert len(formed) == (0 if factored else 2)

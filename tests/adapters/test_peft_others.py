"""MiSS, Bone, AdaLoRA and EVA step by step beside peft's, from the same numbers, on two linear layers in float64."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from fisherexp.adapters import EVA, AdaLoRA, Bone, MiSS, adapted_layers, after_step, inject, merge
from fisherexp.adapters.eva import redistributed
from fisherexp.data.batch import Batch
from fisherexp.methods.finetuning.explained import explained

peft = pytest.importorskip("peft")

CLOSE = {"atol": 1e-6, "rtol": 1e-6}
GENERATOR = torch.Generator().manual_seed(0)
LAYERS = ["first", "second"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 12)
        self.second = nn.Linear(12, 4)

    def forward(self, x):
        return self.second(self.first(x).relu())


@pytest.fixture
def base():
    torch.manual_seed(0)
    return Net()


def theirs_of(base, config):
    return peft.get_peft_model(copy.deepcopy(base), config(target_modules=LAYERS)).double()


def layer_of(theirs, name):
    return theirs.get_submodule(f"base_model.model.{name}")


def together(ours, theirs, pairs, steps=6, after=lambda step: None):
    """Both in the same steps of Adam on the same batches; `pairs` gives (ours, peft's) of what is trained."""
    optimizers = [torch.optim.Adam([p for p in m.parameters() if p.requires_grad], 1e-2) for m in (ours, theirs)]
    for step in range(steps):
        x = torch.randn(16, 8, generator=GENERATOR, dtype=torch.float64)
        y = torch.randint(4, (16,), generator=GENERATOR)
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        after(step)
        for one, other in pairs():
            torch.testing.assert_close(one, other.view_as(one), **CLOSE)
    moved = merge(ours)(x)
    torch.testing.assert_close(moved, theirs.merge_and_unload()(x), **CLOSE)
    return moved


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (partial(MiSS, rank=4), {"r": 4}),
        (partial(MiSS, rank=5), {"r": 5}),  # which divides neither eight nor twelve
        (partial(MiSS, rank=4, tile=2), {"r": 4, "init_weights": "mini", "mini_r": 2}),
        (partial(Bone, rank=4), {"r": 4, "init_weights": "bat"}),
    ],
)
def test_shards_and_blocks(make, options, base):
    theirs = theirs_of(base, partial(peft.MissConfig, **options))
    ours = copy.deepcopy(base).double()
    inject(ours, LAYERS, make)

    def pairs():
        for name, layer in adapted_layers(ours).items():
            yield next(layer.adapters[0].parameters()), layer_of(theirs, name).miss_block["default"]

    moved = together(ours, theirs, pairs)
    assert moved.isfinite().all()


@pytest.mark.parametrize("every", [1, 2])
def test_budgets_scores_and_pruned_triplets_of_adalora(every, base):
    """24 steps, from 4 triplets a layer to 2 between steps 2 and 18. peft adds 1e-5 to the rank in the scale."""
    schedule = {"tinit": 2, "tfinal": 6, "deltaT": every, "total_step": 24}
    config = partial(peft.AdaLoraConfig, init_r=4, target_r=2, lora_alpha=8, orth_reg_weight=0.1, **schedule)
    theirs = theirs_of(base, config)
    ours = copy.deepcopy(base).double()
    inject(
        ours,
        LAYERS,
        partial(AdaLoRA, rank=4, target=2, alpha=8 * 4 / (4 + 1e-5), initial=2 / 24, final=0.25, every=every),
    )
    counts = []

    def pairs():
        for name, layer in adapted_layers(ours).items():
            one, other = layer.adapters[0], layer_of(theirs, name)
            yield one.left, other.lora_B["default"]
            yield one.values, other.lora_E["default"]
            yield one.right, other.lora_A["default"]

    with torch.no_grad():
        for one, other in pairs():
            other.copy_(one.view_as(other))

    def after(step):
        after_step(ours, step, 24)
        theirs.base_model.update_and_allocate(step)
        counts.append(sum(int((layer.adapters[0].values != 0).sum()) for layer in adapted_layers(ours).values()))

    together(ours, theirs, pairs, steps=24, after=after)
    assert counts[0] == 8
    assert set(counts[18:]) == {4}


def test_ranks_and_directions_of_eva(base):
    """The directions up to their signs; peft's decomposition is a randomized one."""
    spread = torch.tensor([2.4, 2.0, 1.7, 0.5, 0.4, 0.3, 0.2, 0.1])
    with torch.no_grad():
        base.first.weight[3:] *= 0.1  # one direction explains nearly all of what the second layer sees
    ranks = eva_beside_peft(base, LAYERS, spread, rank=2)
    assert sum(ranks.values()) == 4
    assert len(set(ranks.values())) == 2  # they are not as they were


def test_layers_that_share_an_input_have_the_same_directions_of_eva():
    """peft decomposes what query and value both see once, here each has a decomposition; both count in the budget."""
    torch.manual_seed(0)
    base = Shared()
    with torch.no_grad():
        base.query.weight[1:] *= 0.05  # one direction explains nearly all of what the last layer sees
        base.value.weight[1:] *= 0.05
    spread = torch.tensor([2.6, 2.2, 1.8, 1.5, 0.3, 0.2, 0.2, 0.1])
    ranks = eva_beside_peft(base, ["query", "value", "out"], spread, rank=3)
    assert ranks == {"query": 4, "value": 4, "out": 1}


class Shared(nn.Module):
    """Two layers of the same inputs."""

    def __init__(self):
        super().__init__()
        self.query, self.value, self.out = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x):
        return self.out((self.query(x) + self.value(x)).relu())


def eva_beside_peft(base, layers, spread, rank):
    """The ranks, once they, directions, scales and the steps of a training are peft's on inputs of these deviations."""
    batches = [spread * torch.randn(64, 8, generator=GENERATOR) + 1 for _ in range(12)]
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=4,
        target_modules=layers,
        init_lora_weights="eva",
        eva_config=peft.EvaConfig(rho=2.0, tau=0.9999),
    )
    theirs = peft.get_peft_model(copy.deepcopy(base), config)
    given = {"prepare_model_inputs_fn": None, "prepare_layer_inputs_fn": None, "show_progress_bar": False}
    peft.initialize_lora_eva_weights(theirs, batches, forward_fn=lambda model, batch: model(batch), **given)
    found = explained(base, layers, [Batch(x, x[:, 0]) for x in 10 * batches], rank=rank, rho=2.0, tau=0.9999)
    ours = copy.deepcopy(base).double()
    ranks = {name: len(layer_of(theirs, name).lora_A["default"].weight) for name in layers}
    options = {name: {"directions": found.directions[name][:own]} for name, own in ranks.items()}
    inject(ours, layers, partial(EVA, rank=rank, alpha=4), options=options)
    theirs = theirs.double()

    def pairs():
        for name, layer in adapted_layers(ours).items():
            other = layer_of(theirs, name)
            yield layer.adapters[0].down, other.lora_A["default"].weight
            yield layer.adapters[0].up, other.lora_B["default"].weight

    assert redistributed(found.ratios, rank) == ranks
    with torch.no_grad():
        for name in layers:
            down, other = adapted_layers(ours)[name].adapters[0].down, layer_of(theirs, name).lora_A["default"].weight
            assert ((down * other).sum(1).abs() > math.cos(math.radians(5))).all()
            down.copy_(other)
            assert adapted_layers(ours)[name].adapters[0].scale == layer_of(theirs, name).scaling["default"]
    together(ours, theirs, pairs)
    return ranks

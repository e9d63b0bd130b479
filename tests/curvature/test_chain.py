"""What a chain of torch's own layers proves without a forward pass, and what takes the proof away."""

import functools

import pytest
import torch
from fisher_oracles import one_at_a_time, worst
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.overrides import TorchFunctionMode

from fisherexp.curvature import DiagonalAccumulator, fisher_diagonal
from fisherexp.curvature.chain import proven_steps
from fisherexp.curvature.rules.normalization import CoupledSamples


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Sequential(nn.Linear(6, 5), nn.Tanh()))


def images():
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 4, 3, groups=2, bias=False), nn.GroupNorm(2, 4), nn.GELU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 5)),
    )


def signals():
    return nn.Sequential(
        nn.Conv1d(3, 4, 3), nn.SiLU(), nn.AvgPool1d(2), nn.Flatten(), nn.LayerNorm(12), nn.Linear(12, 5)
    )


def tokens():
    """The batch lies first before and after layers over positions."""
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ELU(), nn.Linear(6, 2, bias=False), nn.Flatten(1, -1))


CHAINS = {"mlp": (mlp, (3, 4)), "images": (images, (3, 8, 8)), "signals": (signals, (3, 8)), "tokens": (tokens, (3, 4))}


def made(name, seed=0):
    torch.manual_seed(seed)
    make, shape = CHAINS[name]
    model = make().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
    return model, torch.randn(6, *shape), torch.randint(0, 5, (6,))


@pytest.mark.parametrize("name", CHAINS)
def test_the_proof_says_what_forward_passes_show(name, monkeypatch):
    model, x, y = made(name)
    proven = proven_steps(model, x)
    traced = DiagonalAccumulator(model)
    traced.engine.provable = False  # so that it finds out and verifies
    traced.update(x, y)
    found = traced.engine.layout.steps
    assert [(s.func, s.inputs[0], s.output) for s in proven] == [(s.func, s.inputs[0], s.output) for s in found]
    monkeypatch.setattr("fisherexp.curvature.identity.Part.evaluate", None)  # a proof needs no further forward pass
    fisher = fisher_diagonal(model, [(x, y)])
    assert worst(fisher, one_at_a_time(model, x, y)) < 1e-5
    assert worst(traced.result(), fisher) < 1e-5


class Own(nn.Linear):
    """A subclass may do anything in its forward."""


class Halved(TorchFunctionMode):
    """Stands between layers and functions."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


LOST = {
    "forward hook": lambda m, _: m[1].register_forward_hook(lambda *a: None),
    "forward pre-hook": lambda m, _: m[2].register_forward_pre_hook(lambda *a: None),
    "hook on the whole": lambda m, _: m.register_forward_hook(lambda *a: None),
    "backward hook": lambda m, _: m[1].register_full_backward_hook(lambda *a: None),
    "backward pre-hook": lambda m, _: m[1].register_full_backward_pre_hook(lambda *a: None),
    "hook of a parameter": lambda m, _: m[1].weight.register_hook(lambda g: 2 * g),
    "patched forward": lambda m, _: setattr(m[2], "forward", lambda x: x - x.mean(0)),
    "patched call": lambda m, _: setattr(m[1], "_call_impl", lambda x: x),
    "patched class": lambda m, patch: patch.setattr(nn.ReLU, "forward", lambda self, x: x - x.mean(0)),
    "patched function": lambda m, patch: patch.setattr(F, "relu", lambda x, inplace=False: x - x.mean(0)),
    "subclass": lambda m, _: m.append(Own(5, 5)),
    "subclass of the chain": lambda m, _: m.append(type("Chain", (nn.Sequential,), {})(nn.ReLU())),
    "layer not known": lambda m, _: m.append(nn.Softmax(0)),
    "samples merged": lambda m, _: m.append(nn.Flatten(0)),
    "some axes merged": lambda m, _: m.insert(0, nn.Flatten(0, 1)),
    "parametrization": lambda m, _: parametrizations.weight_norm(m[1]),
    "compiled layer": lambda m, _: setattr(m[1], "_compiled_call_impl", lambda x: x),
    "parameter of another kind": lambda m, _: m[1].register_parameter("weight", nn.Parameter(m[1].weight.to_sparse())),
    "further parameter": lambda m, _: m[1].register_parameter("scale", nn.Parameter(torch.ones(1))),
    "bias for each sample": lambda m, _: m[1].register_parameter("bias", nn.Parameter(torch.zeros(6, 6))),
    "batch statistics": lambda m, _: m.append(nn.BatchNorm1d(5, track_running_stats=False)),
    "training mode": lambda m, _: m.append(nn.BatchNorm1d(5).train()),
    "dropout in training mode": lambda m, _: m.append(nn.Dropout().train()),
    "norm over samples": lambda m, _: m.append(nn.LayerNorm((6, 5))),
    "padding in a circle": lambda m, _: m.insert(0, nn.Conv1d(3, 3, 3, padding=1, padding_mode="circular")),
    "images for one": lambda m, _: m.insert(0, nn.Conv2d(6, 6, 1)),
}


@pytest.mark.parametrize("what", LOST)
def test_lost_proofs(what, monkeypatch):
    model, x, _ = made("mlp")
    assert proven_steps(model, x)
    LOST[what](model, monkeypatch)
    assert proven_steps(model, x) is None


SURROUNDINGS = {
    "function mode": Halved,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "saved tensors": lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t),
}


@pytest.mark.parametrize("what", SURROUNDINGS)
def test_proofs_lost_for_a_while(what):
    model, x, _ = made("mlp")
    with SURROUNDINGS[what]():
        assert proven_steps(model, x) is None
    handle = nn.modules.module.register_module_forward_hook(lambda *a: None)
    assert proven_steps(model, x) is None
    handle.remove()
    assert proven_steps(model, x)


@pytest.mark.parametrize("inputs", [(torch.ones(6, 3, 4),), torch.ones(6, 3, 4).long(), torch.ones(6, 12).to_sparse()])
def test_inputs_that_prove_nothing(inputs):
    assert proven_steps(made("mlp")[0], inputs) is None


def test_a_hook_between_batches_is_found():
    model, x, y = made("mlp")
    accumulator = DiagonalAccumulator(model)
    accumulator.update(x, y)
    before = {name: total.clone() for name, total in accumulator.sums().items()}
    handle = model[2].register_forward_hook(lambda module, given, out: out - out.mean(0))
    with pytest.raises(CoupledSamples):
        accumulator.update(x, y)
    handle.remove()
    assert all(torch.equal(total, before[name]) for name, total in accumulator.sums().items())
    accumulator.update(x, y)  # and the proof holds again
    assert accumulator.engine.proven
    assert worst(accumulator.result(), one_at_a_time(model, x, y)) < 1e-5


def test_a_wrong_proof_is_given_up(monkeypatch):
    """A forward pass that meets other functions than the proof says is followed as any other."""
    model, x, y = made("mlp")
    wrong = functools.partial(proven_steps, model[1:])
    monkeypatch.setattr("fisherexp.curvature.following.proven_steps", lambda m, inputs: wrong(inputs.flatten(1))[:1])
    accumulator = DiagonalAccumulator(model)
    accumulator.update(x, y)
    assert not accumulator.engine.provable
    assert worst(accumulator.result(), one_at_a_time(model, x, y)) < 1e-5

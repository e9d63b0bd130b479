"""The forward pass of the first batch itself tells where the batch lies, where samples lie along first axes."""

import pytest
import torch
from fisher_oracles import Residual, Shared, TinyGPT, one_at_a_time, worst
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import DiagonalAccumulator
from fisherexp.curvature.layout import Axis, UnknownLayout
from fisherexp.curvature.look import Look
from fisherexp.curvature.verification import Verified


class Prompted(nn.Module):
    """Parameters that are expanded, computed from others, added, and not of the samples' shape."""

    def __init__(self):
        super().__init__()
        self.token, self.scale = nn.Parameter(torch.randn(1, 1, 5)), nn.Parameter(torch.randn(5))
        self.position = nn.Embedding(7, 5)
        self.layer, self.head = nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + self.position(torch.arange(x.shape[1]).unsqueeze(0))
        return self.head(F.linear(x, self.layer.weight * self.scale.exp(), self.layer.bias).tanh().mean(1))


class TimeMajor(nn.Module):
    """Positions first, merged with samples."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, x):
        n, t, _ = x.shape
        rows = self.layer(x.transpose(0, 1).reshape(t * n, 5)).tanh()
        return self.head(rows.reshape(t, n, 5).mean(0))


def tokens():
    return torch.randint(0, 13, (16, 7))


LOOKED = {
    "shared": (Shared, lambda: torch.randn(16, 6)),
    "residual": (Residual, lambda: torch.randn(16, 3, 6, 6)),
    "prompted": (Prompted, lambda: torch.randn(16, 6, 5)),
}
SEQUENCES = {"gpt": (TinyGPT, tokens)}


def run(make, inputs, monkeypatch, sequence=False, whole=False, **patched):
    """The accumulator after a batch and how many forward passes that took; whole: verification of all samples."""
    torch.manual_seed(0)
    model, x = make().eval(), inputs()
    if not whole:
        monkeypatch.setattr("fisherexp.curvature.following.WHOLE", 0)
    passes = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *given: (passes.append(1), forward(*given))[1])
    y = torch.randint(0, 4, (16, 7) if sequence else (16,))
    accumulator = DiagonalAccumulator(model, loss="sequence" if sequence else None)
    accumulator.update(x, y)
    if sequence:
        loss = lambda out, labels: F.cross_entropy(out.flatten(0, 1), labels.flatten())  # noqa: E731
        expected = one_at_a_time(model, x, y, loss)
    else:
        expected = one_at_a_time(model, x, y)
    count = len(passes) - 16
    assert worst(accumulator.result(), expected) < 1e-4
    return accumulator, count


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", [*LOOKED, *SEQUENCES])
def test_one_pass_on_a_part_is_enough(name, whole, monkeypatch):
    make, inputs = (LOOKED | SEQUENCES)[name]
    looked, passes = run(make, inputs, monkeypatch, name in SEQUENCES, whole)
    assert passes == 2 + whole  # of the batch and of the part, in two pieces where that is all samples
    monkeypatch.undo()
    monkeypatch.setattr(Look, "_next", _lost)  # the control: what two small passes say
    traced, more = run(make, inputs, monkeypatch, name in SEQUENCES, whole)
    assert more > passes
    assert looked.engine.layout.steps == traced.engine.layout.steps


def _lost(look):

    raise UnknownLayout


def test_merged_axes_need_another_pass(monkeypatch):
    accumulator, passes = run(TimeMajor, lambda: torch.randn(16, 6, 5), monkeypatch)
    assert passes > 2
    assert accumulator.engine.layout.steps[0].output == Axis(0, outer=False)


@pytest.mark.parametrize("wrong", [Axis(1), None])
def test_a_wrong_look_is_found_out(wrong, monkeypatch):
    """Whatever a look says, the gradients it leads to are verified, and two small passes are asked next."""
    step = Look.step

    def mistaken(look, *given):
        found = step(look, *given)
        if found is not None and len(look.steps) == 1:
            look.steps[0] = found._replace(inputs=(wrong, *found.inputs[1:]))
        return found

    monkeypatch.setattr(Look, "step", mistaken)
    _, passes = run(
        lambda: nn.Sequential(nn.Linear(5, 5), nn.Tanh(), Mean()), lambda: torch.randn(16, 5, 5), monkeypatch
    )
    assert passes > 2


class Mean(nn.Module):
    """Over positions."""

    def forward(self, x):
        return x.mean(1)


class Table(nn.Module):
    """Adds entries of a table of parameters to its input, as attention windows do with relative positions."""

    def __init__(self, chosen):
        super().__init__()
        self.table, self.head, self.chosen = nn.Parameter(torch.randn(9, 5)), nn.Linear(5, 4), chosen
        self.register_buffer("index", torch.tensor([0, 3, 3, 8, 1, 2]))

    def forward(self, x):
        index = self.index
        if self.chosen == "by values":
            index = index + (x.sum() > 1e9)
        elif self.chosen == "written":
            index.copy_((index + (x.sum() > 1e9)) % 9)
        return self.head((x + self.table[index.view(-1)]).tanh().mean(1))


@pytest.mark.parametrize(("chosen", "moves"), [("constant", 0), ("by values", 1), ("written", 1)])
def test_indices_of_parameters(chosen, moves, monkeypatch):
    """Those that a batch could decide about have all samples verified, buffers that nothing wrote to do not."""
    found = []
    covers = Verified.covers
    monkeypatch.setattr(Verified, "covers", lambda self, path: found.append(path) or covers(self, path))
    torch.manual_seed(0)
    monkeypatch.setattr("fisherexp.curvature.following.WHOLE", 0)
    model, x, y = Table(chosen).eval(), torch.randn(16, 6, 5), torch.randint(0, 4, (16,))
    accumulator = DiagonalAccumulator(model)
    for _ in range(2):
        accumulator.update(x, y)
    assert [len(path.indices) for path in found] == [moves]
    assert worst(accumulator.result(), one_at_a_time(model, x, y)) < 1e-4

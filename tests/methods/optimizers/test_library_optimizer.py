"""Optimizers of the library pytorch-optimizer: its own steps with the options given; one clear line where it lacks."""

import math
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.config.explain import composed
from fisherexp.experiment import run_experiment
from fisherexp.methods.optimizers.library_optimizer import LibraryOptimizer, hidden_matrices, library
from fisherexp.models.char_gpt import CharGPT

LOOP = {"epochs": 1, "lr": 0.02, "weight_decay": 0.1, "cpu_seconds": None}
OPTIONS = {
    "soap": {"betas": [0.8, 0.9], "precondition_frequency": 2},
    "shampoo": {"momentum": 0.5},
    "muon": {"momentum": 0.8, "adamw_lr": 0.01, "adamw_wd": 0.1},
}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))


def stepped(model, optimizer) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(3)
    for _ in range(5):
        x, y = torch.randn(8, 4, generator=drawn), torch.randint(3, (8,), generator=drawn)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("algorithm", OPTIONS)
def test_steps_are_those_of_the_library_with_the_given_options(algorithm):
    made = pytest.importorskip("pytorch_optimizer").load_optimizer(algorithm)
    options = OPTIONS[algorithm]
    method, model = LibraryOptimizer(Network(), algorithm=algorithm, options=options, **LOOP), Network()
    groups = list(model.parameters())
    if algorithm == "muon":
        rest = [model.body.bias, *model.head.parameters()]
        groups = [{"params": [model.body.weight], "use_muon": True}, {"params": rest, "use_muon": False}]
    expected = stepped(model, made(groups, lr=0.02, weight_decay=0.1, **options))
    assert torch.equal(stepped(method.model, method.configure_optimizers()), expected)


def test_an_option_that_the_library_does_not_know_or_take_is_refused_in_one_line():
    pytest.importorskip("pytorch_optimizer")
    with pytest.raises(ValueError, match=r"method.options.betos: SOAP has none of that name, nearest: betas"):
        LibraryOptimizer(Network(), algorithm="soap", options={"betos": 1}, **LOOP)
    method = LibraryOptimizer(Network(), algorithm="soap", options={"eps": -1.0}, **LOOP)
    with pytest.raises(ValueError, match=r"^method.options: SOAP says: "):
        method.configure_optimizers()


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fisherexp\[pytorch_optimizer\]'"):
        library()


def test_hidden_matrices_are_neither_embeddings_nor_the_head():
    backbone = CharGPT(dim=8, depth=1, heads=2, tied=False, input_shape=(4,), vocabulary=5)
    model = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(8, 5)})
    found = {id(p) for p in hidden_matrices(model)}
    names = [name for name, p in model.named_parameters() if id(p) in found]
    assert names == [n for n, p in model.named_parameters() if n.startswith("backbone.blocks") and p.ndim == 2]
    assert len(names) >= 4


def test_sophia_differentiates_twice_through_attention(tmp_path):
    """Fused attention has no second derivative: without the plain one the first step raises."""
    pytest.importorskip("pytorch_optimizer")
    small = ["method.epochs=1", "data.train_size=64", "data.batch_size=32", "threads=1", f"output_dir={tmp_path}"]
    cfg = composed(["method=library_optimizer", "method.algorithm=sophiah", "model=small_vit", "scenario=none", *small])
    record = run_experiment(cfg, tmp_path / "run", [])
    assert math.isfinite(record["metrics"]["after"]["test_nll"])

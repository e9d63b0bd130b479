"""What each class of optimizers makes of its options: weights after three steps, with the optimizer written out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.methods.optimizers.adam import Adam
from fisherexp.methods.optimizers.dct_adamw import DCT, DCTAdamW
from fisherexp.methods.optimizers.galore import GaLore, GaLoreAdamW
from fisherexp.methods.optimizers.m_fac import MFAC, MFACOptimizer
from fisherexp.methods.optimizers.natural_galore import NaturalGaLore, NaturalGaLoreAdamW
from fisherexp.methods.optimizers.sgd import SGD

LOOP = {"epochs": 2, "lr": 0.1, "weight_decay": 0.2, "cpu_seconds": None}
OF_GALORE = {"rank": 2, "every": 2, "scale": 0.5, "eps": 1e-3}
NATURAL = OF_GALORE | {"history": 2, "damping": 0.3, "clear_history": True}
OF_DCT = {"rank": 2, "every": 2, "basis": "dct3", "norm": 2, "fast": True, "rotate": False}
OF_DCT |= {"error_feedback": "exact", "eps": 1e-3}
OF_M_FAC = {"window": 3, "damping": 0.1, "momentum": 0.4}


def decayed(cls):
    return lambda parameters, lr, weight_decay, **options: cls(parameters, lr, weight_decay=weight_decay, **options)


CASES = [
    (Adam, {}, decayed(torch.optim.AdamW)),
    (SGD, {"momentum": 0.6}, decayed(torch.optim.SGD)),
    (GaLore, OF_GALORE, decayed(GaLoreAdamW)),
    (NaturalGaLore, NATURAL, decayed(NaturalGaLoreAdamW)),
    (NaturalGaLore, NATURAL | {"clear_history": False}, decayed(NaturalGaLoreAdamW)),
    (DCT, OF_DCT, decayed(DCTAdamW)),
    (MFAC, OF_M_FAC, decayed(MFACOptimizer)),
]


def stepped(model, optimizer):
    drawn = torch.Generator().manual_seed(3)
    for _ in range(3):
        x, y = torch.randn(8, 4, generator=drawn).double(), torch.randint(3, (8,), generator=drawn)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


@pytest.mark.parametrize(("cls", "options", "plain"), CASES, ids=[cls.__name__ for cls, *_ in CASES])
def test_steps_are_those_of_the_optimizer_with_the_given_options(cls, options, plain):
    method, model = cls(net(), **LOOP, **options), net()
    expected = stepped(model, plain(list(model.parameters()), 0.1, 0.2, **options))
    torch.testing.assert_close(stepped(method.model, method.configure_optimizers()), expected)


def test_a_schedule_multiplies_the_rate_and_a_constant_one_needs_none():
    method = Adam(net(), **LOOP, schedule="cosine", warmup_epochs=1)
    method.steps_per_epoch = 2
    configured = method.configure_optimizers()
    assert configured["optimizer"].param_groups[0]["lr"] == pytest.approx(0.1 / 2)  # the first of two warm-up steps
    assert type(Adam(net(), **LOOP).configure_optimizers()) is torch.optim.AdamW

"""AdaLoRA's budget, scores and pruning against the paper's formulas written out."""

import pytest
import torch
from torch import nn

from fisherexp.adapters import AdaLoRA, adapters, after_step, inject
from fisherexp.adapters.adalora import budget
from fisherexp.adapters.orthogonality import orthogonality


@pytest.mark.parametrize(("step", "wanted"), [(0, 24), (10, 24), (40, 16 + 8 * 0.5**3), (69, 16), (70, 16), (99, 16)])
def test_the_budget_falls_by_a_cube(step, wanted):
    """From 24 to 16 between steps 10 and 70 of 100: an eighth of the way is left in the middle."""
    assert budget(step, 100, 24, 16, initial=10, final=30) == int(wanted)


def test_orthonormal_columns_have_no_penalty_and_no_gradient():
    q = torch.linalg.qr(torch.randn(7, 3))[0].requires_grad_()
    orthogonality(q).backward()
    assert orthogonality(q) < 1e-6
    assert not q.grad.any()  # control below: elsewhere there is one
    f = (2 * q.detach()).requires_grad_()
    orthogonality(f).backward()
    torch.testing.assert_close(orthogonality(f), torch.tensor(3 * 3**0.5))  # ‖4 I - I‖ of three columns
    assert f.grad.any()


def train(model, steps, total, watch=lambda step: None):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        x = torch.randn(16, 6, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True).tanh()).square().mean().backward()
        optimizer.step()
        after_step(model, step, total)
        watch(step)


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    inject(net, "linear", lambda w: AdaLoRA(w, rank=4, target=2, alpha=8, initial=0.1, final=0.3, every=1))
    return net


def test_the_layers_share_a_budget_and_end_at_it(model):
    kept, zeros = [], []

    def watch(step):
        kept.append([a.kept.clone() for a in adapters(model)])
        zeros.append([(a.values != 0) <= k for a, k in zip(adapters(model), kept[-1], strict=True)])

    train(model, 40, 40, watch)
    counts = [sum(int(k.sum()) for k in each) for each in kept]
    assert counts[0] == 8  # all, up to a tenth of the steps
    assert counts[-1] == 4  # two for each of two layers
    assert counts == sorted(counts, reverse=True)
    # In the last 30 % the pattern is fixed, and what is pruned is zero after every step.
    assert all(torch.equal(a, b) for each in kept[28:] for a, b in zip(each, kept[-1], strict=True))
    assert all(bool(fits.all()) for each in zeros[5:] for fits in each)
    assert all(a.left.any(dim=0).all() and a.right.any(dim=1).all() for a in adapters(model))  # vectors stay


def test_scores_are_the_papers(model):
    """Ī, Ū and S of one layer, written out over three steps."""
    one, beta = adapters(model)[0], 0.85
    smooth = {n: torch.zeros_like(p) for n, p in one.named_parameters()}
    spread = {n: torch.zeros_like(p) for n, p in one.named_parameters()}

    def watch(step):
        for name, p in one.named_parameters():
            now = (p * p.grad).abs()
            smooth[name] = beta * smooth[name] + (1 - beta) * now
            spread[name] = beta * spread[name] + (1 - beta) * (now - smooth[name]).abs()

    train(model, 3, 40, watch)  # nothing is pruned yet
    s = {name: smooth[name] * spread[name] for name in smooth}
    wanted = s["values"] + s["left"].mean(0) + s["right"].mean(1)
    torch.testing.assert_close(one.scores(), wanted.detach())
    assert wanted.detach().std() > 0


def test_without_a_gradient_sensitivity_decays_by_beta():
    adapter = AdaLoRA(torch.randn(4, 3), rank=2, target=1)
    adapter.left_sensitivity.fill_(1.0)
    for p in adapter.parameters():
        p.grad = torch.zeros_like(p)
    for step in range(3):
        adapter.after_step(step, 100)
    torch.testing.assert_close(adapter.left_sensitivity, torch.full((4, 2), 0.85**3))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"target": 5}, "target=5 is not within 1 … 4"), ({"target": 2, "initial": 0.7}, "leave no steps in between")],
)
def test_a_budget_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AdaLoRA(torch.randn(6, 6), rank=4, **options)

"""What each class makes of its options: the gradient of its loss by every weight, against plain autograd.

The penalties have tests of their own (test_penalties.py); here they are written out again, and it is looked at which of
them a class takes, of what, and how it joins the loss.
"""

import copy
import itertools

import domain_oracles as oracles
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.data.batch import Batch
from fisherexp.methods.domain_generalization.cma import CMA
from fisherexp.methods.domain_generalization.coral import CORAL
from fisherexp.methods.domain_generalization.domain_erm import DomainERM
from fisherexp.methods.domain_generalization.domain_mixup import DomainMixup
from fisherexp.methods.domain_generalization.fish import Fish
from fisherexp.methods.domain_generalization.fishr import Fishr
from fisherexp.methods.domain_generalization.gradient_alignment import GradientAlignment
from fisherexp.methods.domain_generalization.group_dro import GroupDRO
from fisherexp.methods.domain_generalization.hessian_exact import HessianExact
from fisherexp.methods.domain_generalization.hgp import HGP
from fisherexp.methods.domain_generalization.hutchinson import Hutchinson
from fisherexp.methods.domain_generalization.iga import IGA
from fisherexp.methods.domain_generalization.irm import IRM
from fisherexp.methods.domain_generalization.mmd import MMD
from fisherexp.methods.domain_generalization.penalty import Penalty
from fisherexp.methods.domain_generalization.spectral_decoupling import SpectralDecoupling
from fisherexp.methods.domain_generalization.vrex import VREx
from fisherexp.methods.recipe import Recipe

SIZES = (6, 8, 5)
DOMAIN = torch.arange(3).repeat_interleave(torch.tensor(SIZES))
DRAWN = torch.Generator().manual_seed(0)
INPUTS = torch.randn(19, 4, dtype=torch.float64, generator=DRAWN)
LABELS = torch.randint(3, (19,), generator=DRAWN)
BATCH = Batch(INPUTS, LABELS, tags={"domain": DOMAIN})
EVERY = {"over": ["sum", "mean"], "detach_center": [False, True], "terms": ["own", "equal"]}


class Net(nn.Module):
    """Four numbers, five features, three classes, float64."""

    one_logit = False

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.body, self.head = nn.Linear(4, 5).double(), nn.Linear(5, 3).double()

    def features(self, x):
        return torch.tanh(self.body(x))

    def forward(self, x):
        return self.head(self.features(x))


def seen(model):
    """The head as a matrix (C, d + 1), and (features, labels) of each domain."""
    theta = torch.cat([model.head.weight, model.head.bias[:, None]], 1)
    return theta, [(model.features(INPUTS[DOMAIN.eq(e)]), LABELS[DOMAIN.eq(e)]) for e in range(3)]


def averaged(total, penalty):
    return total if penalty.over == "sum" else total / 3


def weighed(alpha, beta, penalty):
    return (1.0, 1.0) if penalty.terms == "equal" else (alpha, beta)


def gradient_term(theta, data, penalty):
    return averaged(oracles.total_spread([oracles.gradient(theta, *part) for part in data]), penalty)


def hgp(theta, data, penalty, alpha, beta):
    alpha, beta = weighed(alpha, beta, penalty)
    gradients = [oracles.gradient(theta, *part) for part in data]
    hessians = [oracles.hessian_by_rows(theta, *part) for part in data]
    own = [h @ g.flatten() for h, g in zip(hessians, gradients, strict=True)]
    center = (sum(hessians) / 3) @ (sum(gradients) / 3).flatten()
    spread = averaged(oracles.total_spread(own, center, penalty.detach_center), penalty)
    return alpha * spread + beta * gradient_term(theta, data, penalty)


def hessian_exact(theta, data, penalty, alpha, beta, diagonal):
    alpha, beta = weighed(alpha, beta, penalty)
    hessians = [oracles.hessian_by_rows(theta, *part) for part in data]
    parts = [h.diagonal() for h in hessians] if diagonal else hessians
    spread = averaged(oracles.total_spread(parts), penalty)
    return alpha * spread + beta * gradient_term(theta, data, penalty)


def hutchinson(theta, data, penalty, alpha, beta, count, probes):
    alpha, beta = weighed(alpha, beta, penalty)
    hessians = [oracles.hessian_by_rows(theta, *part) for part in data]
    sets = 1 if probes == "shared" else 4
    torch.manual_seed(5)  # as the class draws: the mean's, then each domain's
    signs = [2.0 * torch.randint(2, (count, *theta.shape)).double().flatten(1) - 1 for _ in range(sets)]
    of_mean, *own = signs * 4 if sets == 1 else signs

    def estimate(h, z):
        return (z * (z @ h)).mean(0)

    center = estimate(sum(hessians) / 3, of_mean)
    parts = [estimate(h, z) for h, z in zip(hessians, own, strict=False)]
    spread = averaged(oracles.total_spread(parts[:3], center, penalty.detach_center), penalty)
    return alpha * spread + beta * gradient_term(theta, data, penalty)


def irm(theta, data, penalty, half_batches):
    def slope(h, y):
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(oracles.loss(scale * theta, h, y), scale, create_graph=True)[0]

    if half_batches:
        return sum(slope(h[::2], y[::2]) * slope(h[1::2], y[1::2]) for h, y in data) / 3
    return sum(slope(*part) ** 2 for part in data) / 3


def vrex(theta, data, penalty):
    each = [oracles.loss(theta, *part) for part in data]
    if penalty.over == "sum":
        pairs = list(itertools.combinations(each, 2))
        return sum((a - b) ** 2 for a, b in pairs)
    return sum((a - sum(each) / 3) ** 2 for a in each) / 3


def fishr(theta, data, penalty, ema):
    variances = []
    for h, y in data:
        rows = torch.stack([oracles.gradient(theta, h[i : i + 1], y[i : i + 1]) for i in range(len(y))])
        variances.append(rows.var(0, correction=0))
    spread = oracles.total_spread(variances)
    return spread if penalty.over == "sum" else spread / 3 / theta.numel()


def cma(theta, data, penalty, alpha, beta, scaled, gradient):
    """The Hessian by the head's weight alone, and everything weighed by the domains' sizes."""
    alpha, beta = weighed(alpha, beta, penalty)
    shares, d, c = torch.tensor(SIZES, dtype=torch.float64) / 19, 5, 3
    inner = torch.arange(c * (d + 1)).view(c, d + 1)[:, :-1].flatten()
    hessians = [oracles.hessian_by_rows(theta, *part)[inner][:, inner] for part in data]
    gradients = [oracles.gradient(theta, *part)[: 1 if gradient == "official" else c, :-1] for part in data]

    def distances(parts):
        mean = sum(parts) / 3
        found = sum(w * ((part - mean) ** 2).sum() for w, part in zip(shares, parts, strict=True))
        return found if penalty.over == "mean" else 3 * found

    return alpha * distances(hessians) / ((d * c) ** 2 if scaled else 1) + beta * distances(gradients) / (
        d if scaled else 1
    )


def coral(theta, data, penalty):
    moments = [(h.mean(0), (h - h.mean(0)).T @ (h - h.mean(0)) / (len(h) - 1)) for h, _ in data]
    pairs = list(itertools.combinations(moments, 2))
    return sum(((a - b) ** 2).mean() + ((s - t) ** 2).mean() for (a, s), (b, t) in pairs) / 3


def mmd(theta, data, penalty, gammas, samples):
    features = [h for h, _ in data]
    if samples is not None:
        torch.manual_seed(5)
        features = [h[torch.randperm(len(h))[:samples]] for h in features]

    def k(x, y):
        squared = (x[:, None] - y[None]).square().sum(2)
        return sum(torch.exp(-g * squared).mean() for g in gammas)

    return sum(k(x, x) + k(y, y) - 2 * k(x, y) for x, y in itertools.combinations(features, 2)) / 3


def spectral(theta, data, penalty):
    logits = torch.cat([oracles.logits(theta, h) for h, _ in data])
    return (logits**2).mean()


def two_terms(**more):
    return [{"alpha": 2.0, "beta": 3.0, **dict(zip(more, v, strict=True))} for v in itertools.product(*more.values())]


# class, options to try, the penalty written out, and the conventions of `Penalty` that it knows
CASES = {
    "gradient_alignment": (GradientAlignment, [{}], gradient_term, ["over"]),
    "hgp": (HGP, [{"alpha": 2.0, "beta": 3.0}, {"alpha": 0.0, "beta": 3.0}], hgp, ["over", "detach_center", "terms"]),
    "hessian_exact": (HessianExact, two_terms(diagonal=[False, True]), hessian_exact, ["over", "terms"]),
    "hutchinson": (
        Hutchinson,
        two_terms(count=[2, 3], probes=["independent", "shared"]),
        hutchinson,
        ["over", "detach_center", "terms"],
    ),
    "irm": (IRM, [{"half_batches": False}, {"half_batches": True}], irm, []),
    "vrex": (VREx, [{}], vrex, ["over"]),
    "fishr": (Fishr, [{"ema": 0.0}], fishr, ["over"]),
    "cma": (CMA, two_terms(scaled=[True, False], gradient=["whole", "official"]), cma, ["over", "terms"]),
    "coral": (CORAL, [{}], coral, []),
    "mmd": (MMD, [{"gammas": g, "samples": n} for g in ([0.1, 1.0], [0.3]) for n in (None, 3)], mmd, []),
    "spectral_decoupling": (SpectralDecoupling, [{}], spectral, []),
}


def gradients(loss, model):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def found(method):
    torch.manual_seed(5)
    return gradients(method.penalized_risk(BATCH), method.model)


def mean_risk(model, data):
    theta = seen(model)[0]
    return sum(oracles.loss(theta, *part) for part in data) / 3


def expected(name, options, penalty):
    model, (_, _, oracle, _) = Net(), CASES[name]
    theta, data = seen(model)
    risk = mean_risk(model, data)
    if name == "cma":
        risk = sum(n / 19 * oracles.loss(theta, *part) for n, part in zip(SIZES, data, strict=True))
    norm = sum((p**2).sum() for p in model.parameters())
    weight = penalty.weight if penalty.anneal == 0 else penalty.before
    total = risk + penalty.l2 * norm + weight * oracle(theta, data, penalty, **options)
    return gradients(total / weight if penalty.rescale and weight > 1 else total, model)


def conventions(known):
    """Every mixture of those a class knows, and one more in which all others differ."""
    mixtures = [dict(zip(known, values, strict=True)) for values in itertools.product(*(EVERY[key] for key in known))]
    others = {key: values[1] for key, values in EVERY.items() if key not in known}
    return [{key: values[0] for key, values in EVERY.items()} | m for m in [*mixtures, mixtures[0] | others]]


@pytest.mark.parametrize(("name", "options"), [(name, o) for name, case in CASES.items() for o in case[1]], ids=str)
def test_gradient_of_the_loss_under_every_convention(name, options):
    """Those conventions that the class does not know make no difference, the others do."""
    cls, _, _, known = CASES[name]
    if (
        options.get("probes") == "shared" or options.get("alpha") == 0
    ):  # the center is the mean itself, or there is none
        known = [key for key in known if key != "detach_center"]
    seen_so_far = {}
    for convention in conventions(known):
        penalty = Penalty(weight=7.0, **convention)
        mine = found(cls(Net(), **options, training=Recipe(), penalty=penalty))
        torch.testing.assert_close(mine, expected(name, options, penalty), rtol=1e-9, atol=1e-12)
        seen_so_far[tuple(convention[key] for key in known)] = mine
    for one, other in itertools.combinations(seen_so_far.values(), 2):
        assert not torch.allclose(one, other, rtol=1e-6), "two conventions are one"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "joining",
    [
        {"weight": 7.0},
        {"weight": 7.0, "rescale": True},
        {"weight": 0.5, "rescale": True},
        {"weight": 7.0, "before": 2.0, "anneal": 1, "rescale": True},
        {"weight": 7.0, "l2": 0.3},
        {"weight": 7.0, "l2": 0.3, "rescale": True},
    ],
    ids=str,
)
def test_how_the_penalty_joins_the_loss(name, joining):
    """Its weight now, the preset's `rescale`, and the squared weights."""
    cls, (options, *_), _, _ = CASES[name]
    penalty = Penalty(**joining)
    mine = found(cls(Net(), **options, training=Recipe(), penalty=penalty))
    torch.testing.assert_close(mine, expected(name, options, penalty), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("joining", [{"weight": 7.0}, {"weight": 7.0, "rescale": True, "l2": 0.3}], ids=str)
def test_iga_trains_what_it_penalizes(joining):
    """Second derivatives of every weight; the mean of the gradients is a constant."""
    penalty, model = Penalty(**joining), Net()
    mine = found(IGA(Net(), Recipe(), penalty))
    each = [F.cross_entropy(model(INPUTS[DOMAIN.eq(e)]), LABELS[DOMAIN.eq(e)]) for e in range(3)]
    rows = []
    for loss in each:
        parts = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    misaligned = oracles.total_spread(rows, detach=True)
    norm = sum((p**2).sum() for p in model.parameters())
    total = sum(each) / 3 + penalty.l2 * norm + penalty.weight * misaligned
    torch.testing.assert_close(mine, gradients(total / (7.0 if penalty.rescale else 1.0), model), rtol=1e-9, atol=1e-12)


def test_group_dro_accumulates_its_weights():
    """Two steps: the second begins with the weights of the first."""
    method, model = GroupDRO(Net(), 0.5, Recipe(), Penalty(l2=0.2)), Net()
    norm = sum((p**2).sum() for p in model.parameters())
    _, data = seen(model)
    each = torch.stack([oracles.loss(seen(model)[0], *part) for part in data])
    q = torch.ones(3, dtype=torch.float64)
    for _ in range(2):
        mine = found(method)
        q = q * torch.exp(0.5 * each.detach())
        q = q / q.sum()
        torch.testing.assert_close(method.weights, q, rtol=1e-12, atol=0)
        once = torch.autograd.grad((q * each).sum() + 0.2 * norm, list(model.parameters()), retain_graph=True)
        torch.testing.assert_close(mine, torch.cat([g.flatten() for g in once]), rtol=1e-10, atol=1e-13)


def test_fishr_takes_up_its_average_in_the_second_step():
    """m ← ema m + (1 - ema) v, of which m / (1 - ema) is compared; only the newest v has a gradient."""
    method, model = Fishr(Net(), 0.4, Recipe(), Penalty(weight=7.0, over="sum")), Net()
    found(method)
    method.model.head.weight.data *= 1.5
    first = fishr_variances(model)
    model.head.weight.data *= 1.5
    second = fishr_variances(model)
    smoothed = 0.4 * (0.6 * first.detach()) + 0.6 * second
    data = seen(model)[1]
    total = mean_risk(model, data) + 7.0 * oracles.total_spread(list(smoothed / 0.6))
    torch.testing.assert_close(found(method), gradients(total, model), rtol=1e-9, atol=1e-12)


def fishr_variances(model):
    theta, data = seen(model)
    rows = [torch.stack([oracles.gradient(theta, h[i : i + 1], y[i : i + 1]) for i in range(len(y))]) for h, y in data]
    return torch.stack([part.var(0, correction=0) for part in rows])


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_plain_training_and_mixup_between_domains_know_l2_only(l2):
    penalty, model = Penalty(weight=7.0, rescale=True, l2=l2), Net()
    _, data = seen(model)
    norm = l2 * sum((p**2).sum() for p in model.parameters())
    torch.testing.assert_close(
        found(DomainERM(Net(), Recipe(), penalty)), gradients(mean_risk(model, data) + norm, model)
    )


@pytest.mark.parametrize("alpha", [0.2, 5.0])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_mixup_between_domains_is_its_equation(alpha, l2):
    mine, model = found(DomainMixup(Net(), alpha, Recipe(), Penalty(l2=l2))), Net()
    torch.manual_seed(5)
    ring = torch.randperm(3).tolist()
    shares = torch.distributions.Beta(alpha, alpha).sample((3,))
    total = l2 * sum((p**2).sum() for p in model.parameters())
    for k, lam in enumerate(shares.double()):
        e, f = ring[k], ring[(k + 1) % 3]
        n = min(SIZES[e], SIZES[f])
        x = lam * INPUTS[DOMAIN.eq(e)][:n] + (1 - lam) * INPUTS[DOMAIN.eq(f)][:n]
        for share, d in ((lam, e), (1 - lam, f)):
            total = total + share * F.cross_entropy(model(x), LABELS[DOMAIN.eq(d)][:n]) / 3
    torch.testing.assert_close(mine, gradients(total, model), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("meta_lr", "l2"), [(0.5, 0.0), (0.25, 0.0), (0.5, 0.3)])
def test_fish_steps_through_the_domains_by_one_optimizer(meta_lr, l2, monkeypatch):
    """Two rounds with momentum, which must outlive a round."""
    method = Fish(Net(), meta_lr, Recipe(), Penalty(l2=l2))
    optimizer = torch.optim.SGD(method.model.parameters(), 0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    monkeypatch.setattr(method, "optimizers", lambda: optimizer)
    monkeypatch.setattr(method, "lr_schedulers", lambda: scheduler)
    monkeypatch.setattr(method, "manual_backward", lambda loss: loss.backward())
    model = Net()
    other = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(2):
        method.training_step(BATCH, 0)
        start = copy.deepcopy(model.state_dict())
        for e in range(3):
            other.zero_grad()
            loss = F.cross_entropy(model(INPUTS[DOMAIN.eq(e)]), LABELS[DOMAIN.eq(e)])
            (loss + l2 * sum((p**2).sum() for p in model.parameters())).backward()
            other.step()
        for name, weight in model.state_dict().items():
            weight.copy_(start[name] + meta_lr * (weight - start[name]))
        for mine, theirs in zip(method.model.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)

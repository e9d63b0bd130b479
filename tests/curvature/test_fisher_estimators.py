"""Label and gradient estimators, losses, weights: closed forms, the definition, and properties."""

import math

import pytest
import torch
from fisher_oracles import Residual, Shared, TinyGPT, one_at_a_time, worst
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import DiagonalAccumulator, FisherDiagonal, fisher_diagonal
from fisherexp.curvature.likelihood import softmax_factors


def small(inputs=6, classes=4):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(inputs, 7), nn.Tanh(), nn.Linear(7, classes)).double()
    return model, torch.randn(9, inputs).double(), torch.randint(0, classes, (9,))


def expected_by_definition(model, x):
    """Σ_c p_c (gradient at label c)², class by class and sample by sample."""
    p = model(x).softmax(-1).detach()
    total = None
    for c in range(p.shape[1]):
        part = one_at_a_time(model, x, torch.full((len(x),), c), weights=p[:, c])
        part = {n: v * p[:, c].sum() for n, v in part.items()}
        total = part if total is None else {n: total[n] + v for n, v in part.items()}
    return {n: v / len(x) for n, v in total.items()}


def test_softmax_factors_are_a_factorization():
    logits = 5 * torch.randn(3, 6, dtype=torch.float64)
    p = logits.softmax(-1)
    covariance = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    factors = torch.stack(list(softmax_factors(logits)))
    assert len(factors) == 5
    torch.testing.assert_close(torch.einsum("kni,knj->nij", factors, factors), covariance, rtol=0, atol=1e-14)


def test_softmax_factors_of_impossible_classes_are_finite():
    logits = torch.tensor([[0.0, -1e4, -1e4], [-1e4, -1e4, 0.0], [0.0, 0.0, -1e4]])
    for s in softmax_factors(logits):
        assert s.isfinite().all()


@pytest.mark.parametrize("model", [None, Shared, Residual])
def test_expected(model):
    net, x, _ = small()
    if model is not None:
        net = model().double().eval()
        x = torch.randn(4, *((6,) if model is Shared else (3, 8, 8))).double()
    assert worst(fisher_diagonal(net, [(x,)], labels="expected"), expected_by_definition(net, x)) <= 1e-10


def test_expected_is_the_mean_of_sampled():
    model, x, _ = small()
    exact = fisher_diagonal(model, [(x,)], labels="expected")
    draws = fisher_diagonal(model, [(x,)], labels="sampled", samples=4000)
    assert abs(draws.trace() / exact.trace() - 1) < 0.05
    assert worst(draws, dict(exact.items())) < 0.15


def test_empirical_equals_expected_for_labels_of_the_model():
    """With every class of every sample given with its probability as weight, true labels are the model's own."""
    model, x, _ = small()
    p = model(x).softmax(-1).detach()
    classes = torch.arange(4).repeat(len(x))
    empirical = fisher_diagonal(model, [(x.repeat_interleave(4, 0), classes, p.flatten())])
    assert worst(empirical, dict(fisher_diagonal(model, [(x,)], labels="expected").items())) <= 1e-10


def test_pseudo():
    model, x, _ = small()
    found = fisher_diagonal(model, [(x,)], labels="pseudo")
    assert worst(found, one_at_a_time(model, x, model(x).argmax(-1))) <= 1e-10


def test_sampled_repeats_with_its_seed_and_leaves_the_global_generator_alone():
    model, x, _ = small()
    before = torch.get_rng_state()
    first, second = (fisher_diagonal(model, [(x,), (x,)], labels="sampled", seed=3) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[n], second[n]) for n in first)
    other = fisher_diagonal(model, [(x,), (x,)], labels="sampled", seed=4)
    assert any(not torch.equal(first[n], other[n]) for n in first)


def test_quadratic_form_is_twice_the_divergence():
    """Summed over sign patterns of δ, off-diagonal terms cancel: E_signs[2 KL] = δᵀ diag(F) δ + O(δ³)."""
    model, x, _ = small(3, 3)
    fisher = fisher_diagonal(model, [(x,)], labels="expected")
    parameter = model[2].bias
    base, step = parameter.detach().clone(), 1e-3 * torch.tensor([1.0, -2.0, 0.5]).double()
    p = model(x).log_softmax(-1).detach()
    divergences = []
    for signs in torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 3):
        with torch.no_grad():
            parameter.copy_(base + signs * step)
            divergences.append(F.kl_div(model(x).log_softmax(-1), p, log_target=True, reduction="batchmean"))
            parameter.copy_(base)
    delta = {n: torch.zeros_like(v) for n, v in fisher.items()} | {"2.bias": step}
    assert math.isclose(2 * torch.stack(divergences).mean(), fisher.quadratic(delta), rel_tol=1e-4)


@pytest.mark.parametrize("labels", ["empirical", "expected"])
def test_parts_add_up(labels):
    model, x, y = small()
    whole = fisher_diagonal(model, [(x, y)], labels=labels)
    parts = [fisher_diagonal(model, [(x[s], y[s])], labels=labels) for s in (slice(0, 2), slice(2, 9))]
    for combined in (FisherDiagonal.combine(parts), parts[0] * (2 / 9) + parts[1] * (7 / 9)):
        assert worst(combined, dict(whole.items())) <= 1e-12
        assert combined.count == 9
    batches = fisher_diagonal(model, [(x[:5], y[:5]), (x[5:], y[5:])], labels=labels)
    assert worst(batches, dict(whole.items())) <= 1e-12


@pytest.mark.parametrize("module", [Residual, Shared])
def test_batch_mean(module):
    torch.manual_seed(0)
    model = module().double().eval()
    x = torch.randn(9, *((6,) if module is Shared else (3, 8, 8))).double()
    y = torch.randint(0, 4, (9,))
    batches = [(x[:6], y[:6]), (x[6:], y[6:])]
    expected = {n: 0 for n, _ in model.named_parameters()}
    for a, b in batches:
        gradients = torch.autograd.grad(F.cross_entropy(model(a), b), list(model.parameters()))
        expected = {n: e + g.square() / 2 for (n, e), g in zip(expected.items(), gradients, strict=True)}
    found = fisher_diagonal(model, batches, gradients="batch_mean")
    assert worst(found, expected) <= 1e-12
    assert (found.count, found.estimator.batch_size) == (2, 6)


def test_batch_mean_of_single_samples_is_the_fisher():
    model, x, y = small()
    singles = fisher_diagonal(model, zip(x.split(1), y.split(1), strict=True), gradients="batch_mean")
    assert worst(singles, dict(fisher_diagonal(model, [(x, y)]).items())) <= 1e-10


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("gradients", ["per_sample", "batch_mean"])
def test_weights(mask, gradients):
    model, x, y = small()
    w = torch.tensor([0, 1, 2, 0.5, 0, 1, 3, 1, 1]).double()
    w = w > 0.7 if mask else w
    x[0] = float("nan")  # what is masked may hold anything
    found = fisher_diagonal(model, [(x, y, w)], gradients=gradients)
    keep, w = w > 0, w.double()
    if gradients == "per_sample":
        expected = one_at_a_time(model, x[keep], y[keep], weights=w[keep])
        assert found.count == w.sum()
    else:
        loss = (F.cross_entropy(model(x[keep]), y[keep], reduction="none") * w[keep]).sum() / w.sum()
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        expected = {n: g.square() for (n, _), g in zip(model.named_parameters(), gradient, strict=True)}
    assert worst(found, expected) <= 1e-10


def test_regression():
    model, x, _ = small()
    y = torch.randn(9, 4).double()
    found = fisher_diagonal(model, [(x, y)], loss="gaussian")
    expected = one_at_a_time(model, x, y, lambda f, t: 0.5 * (f - t).square().sum())
    assert worst(found, expected) <= 1e-10
    exact = fisher_diagonal(model, [(x,)], loss="gaussian", labels="expected")
    total = [one_at_a_time(model, x, y, lambda f, _, k=k: f[0, k]) for k in range(4)]
    assert worst(exact, {n: sum(t[n] for t in total) for n in exact}) <= 1e-10
    drawn = fisher_diagonal(model, [(x,)], loss="gaussian", labels="sampled", samples=2000)
    assert abs(drawn.trace() / exact.trace() - 1) < 0.1


def test_soft_targets_and_own_loss():
    model, x, y = small()
    soft = torch.rand(9, 4).double()
    assert worst(fisher_diagonal(model, [(x, soft)]), one_at_a_time(model, x, soft)) <= 1e-10

    def squared_hinge(outputs, targets):
        return F.multi_margin_loss(outputs, targets, p=2, reduction="none")

    found = fisher_diagonal(model, [(x, y)], loss=squared_hinge)
    assert worst(found, one_at_a_time(model, x, y, squared_hinge)) <= 1e-10
    with pytest.raises(ValueError, match="one value per sample"):
        fisher_diagonal(model, [(x, y)], loss=F.cross_entropy)
    with pytest.raises(ValueError, match=r"Valid: empirical\."):
        fisher_diagonal(model, [(x, y)], loss=squared_hinge, labels="expected")


def language():
    torch.manual_seed(0)
    model = TinyGPT(length=5).double().eval()
    tokens, targets = torch.randint(0, 13, (2, 3, 5))
    targets[0, 3:] = -100
    return model, tokens, targets


def per_token(model, tokens, targets):
    """Sum of squared gradients of every counted token, and their number."""
    total, count = {n: 0 for n, _ in model.named_parameters()}, 0
    for n, t in (targets != -100).nonzero().tolist():
        gradient = torch.autograd.grad(
            F.cross_entropy(model(tokens[n : n + 1])[0, t : t + 1], targets[n, t : t + 1]), list(model.parameters())
        )
        total = {k: v + g.square() for (k, v), g in zip(total.items(), gradient, strict=True)}
        count += 1
    return total, count


def test_per_token_and_per_sequence():
    model, tokens, targets = language()
    total, count = per_token(model, tokens, targets)
    found = fisher_diagonal(model, [(tokens, targets)], loss="token")
    assert found.count == count
    assert worst(found, {n: v / count for n, v in total.items()}) <= 1e-10
    sequence = fisher_diagonal(model, [(tokens, targets)], loss="sequence")
    expected = one_at_a_time(model, tokens, targets, lambda z, t: F.cross_entropy(z.flatten(0, 1), t.flatten()))
    assert worst(sequence, expected) <= 1e-10
    mask = (targets != -100).double()
    masked = fisher_diagonal(model, [(tokens, targets.clamp_min(0), mask)], loss="sequence")
    assert worst(masked, expected) <= 1e-10


def test_expected_over_sequences():
    """Tokens' labels are independent: the exact expectation is the sum over tokens of each token's own."""
    model, tokens, _ = language()
    tokens = tokens[:1, :2]
    token = fisher_diagonal(model, [(tokens,)], loss="token", labels="expected")
    sequence = fisher_diagonal(model, [(tokens,)], loss="sequence", labels="expected")
    assert worst(sequence, {n: v / 2 for n, v in token.items()}) <= 1e-10  # 2 tokens x (1/2)² against mean of 2
    drawn = fisher_diagonal(model, [(tokens,)], loss="sequence", labels="sampled", samples=400)
    assert abs(drawn.trace() / sequence.trace() - 1) < 0.15


def test_batch_mean_of_tokens():
    model, tokens, targets = language()
    found = fisher_diagonal(model, [(tokens, targets)], loss="token", gradients="batch_mean")
    loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    expected = {n: g.square() for (n, _), g in zip(model.named_parameters(), gradient, strict=True)}
    assert worst(found, expected) <= 1e-10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "emprical"}, "did you mean 'empirical'.*empirical, pseudo, sampled, expected"),
        ({"gradients": "batchmean"}, "did you mean 'batch_mean'.*per_sample, batch_mean"),
        ({"loss": "crossentropy"}, "did you mean 'cross_entropy'"),
        ({"labels": "expected", "gradients": "batch_mean"}, "zero"),
        ({"parameters": ["0.wieght"]}, "0.wieght.*0.weight"),
        ({"parameters": lambda name: False}, "no parameter"),
    ],
)
def test_names_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        DiagonalAccumulator(small()[0], **options)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((torch.randn(2, 6).double(),), "needs targets"),
        ((torch.randn(2, 3, 6).double(), torch.zeros(2, 3).long()), "sequence"),
        ((torch.randn(2, 6).double(), torch.zeros(2).long(), torch.tensor([1.0, -1.0])), "negative"),
        ((torch.randn(2, 6).double(), torch.zeros(2).long(), torch.ones(3)), "do not fit"),
        ((torch.randn(2, 6).double(), torch.zeros(3).long()), "do not fit"),
    ],
)
def test_batches_are_checked(batch, message):
    with pytest.raises(ValueError, match=message):
        fisher_diagonal(small()[0], [batch])

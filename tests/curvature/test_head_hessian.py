"""Closed-form head Hessians against the autograd Hessian in float64."""

import pytest
import torch
from torch.nn import functional as F

from fisherexp.curvature import head_hessian as hh

CASES = [("softmax", 1), ("softmax", 2), ("softmax", 7), ("softmax", 11), ("binary", 1), ("binary", 3)]
SIZES = (5, 9, 4)
every_head = pytest.mark.parametrize(("head", "classes"), CASES)
both_biases = pytest.mark.parametrize("bias", [True, False])
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def problem(head, classes, bias, sizes=SIZES, d=6, scale=1.0):
    g = torch.Generator().manual_seed(classes)
    weight = scale * torch.randn(classes, d + bias, dtype=torch.float64, generator=g)
    return [torch.randn(n, d, dtype=torch.float64, generator=g) for n in sizes], weight


def logits_of(features, weight):
    inputs = hh.with_bias(features, weight.shape[1] > features.shape[1])
    return inputs @ weight.T


def domains_of(features, weight):
    return [(h, logits_of(h, weight)) for h in features]


def dense_hessian(features, weight, head):
    """(C (d+1), C (d+1)) by double backward; labels are arbitrary, the Hessian does not read them."""

    def mean_loss(w):
        logits = logits_of(features, w)
        if head == "softmax":
            return F.cross_entropy(logits, torch.zeros(len(features), dtype=torch.long))
        return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="sum") / len(logits)

    size = weight.numel()
    return torch.autograd.functional.hessian(mean_loss, weight, create_graph=True).reshape(size, size)


@both_biases
@every_head
def test_product_and_diagonal(head, classes, bias):
    (features, *_), weight = problem(head, classes, bias)
    h = dense_hessian(features, weight, head)
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.manual_seed(0))
    options = {"head": head, "bias": bias}
    logits = logits_of(features, weight)
    product = hh.head_hessian_product(features, logits, direction, **options)
    torch.testing.assert_close(product.flatten(), h @ direction.flatten(), **CLOSE)
    diagonal = hh.head_hessian_diagonal(features, logits, **options)
    torch.testing.assert_close(diagonal.flatten(), h.diagonal(), **CLOSE)


@pytest.mark.parametrize("route", [hh._gram_over_samples, hh._gram_over_classes, None])
@both_biases
@every_head
def test_distances_equal_those_of_dense_matrices(head, classes, bias, route, monkeypatch):
    if route is not None:
        monkeypatch.setattr(hh, "_gram_over_samples", route)
        monkeypatch.setattr(hh, "_gram_over_classes", route)
    features, weight = problem(head, classes, bias)
    dense = torch.stack([dense_hessian(h, weight, head) for h in features])
    domains, options = domains_of(features, weight), {"head": head, "bias": bias}
    flat = dense.flatten(1)
    torch.testing.assert_close(hh.frobenius_gram(domains, **options), flat @ flat.T, **CLOSE)
    centered = flat - flat.mean(0)
    gram = hh.frobenius_gram(domains, **options, centered=True)
    torch.testing.assert_close(gram, centered @ centered.T, **CLOSE)
    a, b, _ = domains
    torch.testing.assert_close(hh.frobenius_inner(a, b, **options), flat[0] @ flat[1], **CLOSE)
    torch.testing.assert_close(hh.frobenius_distance(a, b, **options), (flat[0] - flat[1]).norm(), **CLOSE)
    torch.testing.assert_close(hh.alignment_penalty(domains, **options), centered.square().sum(), **CLOSE)


@both_biases
@every_head
def test_spectral_distance_and_its_gradient(head, classes, bias):
    features, weight = problem(head, classes, bias)
    options = {"head": head, "bias": bias}
    results = []
    for closed_form in (True, False):
        w = weight.clone().requires_grad_()
        a, b, _ = domains_of(features, w)
        if closed_form:
            value = hh.spectral_distance(a, b, **options, tol=1e-10)
        else:
            value = torch.linalg.eigvalsh(dense_hessian(a[0], w, head) - dense_hessian(b[0], w, head))
            value = value[value.abs().argmax()].abs()
        results.append((value.detach(), *torch.autograd.grad(value, w)))
        assert value <= hh.frobenius_distance(a, b, **options) + 1e-12
    for ours, oracle in zip(*results, strict=True):
        torch.testing.assert_close(ours, oracle, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("route", [hh._gram_over_samples, hh._gram_over_classes])
@both_biases
@every_head
def test_gradients_of_the_penalty(head, classes, bias, route, monkeypatch):
    monkeypatch.setattr(hh, "_gram_over_samples", route)
    monkeypatch.setattr(hh, "_gram_over_classes", route)
    features, weight = problem(head, classes, bias, sizes=(3, 5), d=3)
    results = []
    for closed_form in (True, False):
        leaves = [t.clone().requires_grad_() for t in (*features, weight)]
        *h, w = leaves
        if closed_form:
            value = hh.alignment_penalty(domains_of(h, w), head=head, bias=bias)
        else:
            dense = torch.stack([_dense_closed(x, w, head) for x in h])
            value = (dense - dense.mean(0)).square().sum()
        results.append(torch.autograd.grad(value, leaves))
    for ours, oracle in zip(*results, strict=True):
        torch.testing.assert_close(ours, oracle, **CLOSE)


def _dense_closed(features, weight, head):
    """The definition with explicit matrices, differentiable in the features too."""
    inputs, logits = hh.with_bias(features, weight.shape[1] > features.shape[1]), logits_of(features, weight)
    if head == "softmax":
        p = logits.softmax(1)
        s = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    else:
        s = torch.diag_embed(logits.sigmoid() * (1 - logits.sigmoid()))
    blocks = torch.einsum("ncd,ni,nj->cidj", s, inputs, inputs) / len(inputs)
    return blocks.reshape(weight.numel(), weight.numel())


@every_head
def test_dense_definition_is_the_autograd_hessian(head, classes):
    (features, *_), weight = problem(head, classes, True)
    torch.testing.assert_close(_dense_closed(features, weight, head), dense_hessian(features, weight, head), **CLOSE)


def test_product_is_differentiable():
    (features, *_), weight = problem("softmax", 3, True, d=3)

    def product(h, w, g):
        return hh.head_hessian_product(h, logits_of(h, w), g)

    leaves = [t.clone().requires_grad_() for t in (features, weight, torch.ones_like(weight))]
    assert torch.autograd.gradcheck(product, leaves)


@pytest.mark.parametrize("route", [hh._gram_over_samples, hh._gram_over_classes])
@pytest.mark.parametrize(("head", "classes"), [("softmax", 2), ("softmax", 7), ("binary", 1), ("binary", 3)])
@pytest.mark.parametrize("scale", [1.0, 5.0, 12.0])
def test_confident_float32_keeps_its_digits(head, classes, route, scale):
    features, weight = problem(head, classes, True, scale=scale)
    single = [(h.float(), z.float()) for h, z in domains_of(features, weight)]
    double = [(h.double(), z.double()) for h, z in single]
    gram, exact = (route(d, head, True, False) for d in (single, double))
    torch.testing.assert_close(gram.double(), exact, rtol=1e-5, atol=0)
    direction = torch.randn(weight.shape, generator=torch.manual_seed(0))
    for function in (
        hh.head_hessian_diagonal,
        lambda *a, **k: hh.head_hessian_product(*a, direction.to(a[0]), **k),
    ):
        ours, oracle = function(*single[0], head=head).double(), function(*double[0], head=head)
        torch.testing.assert_close(ours, oracle, rtol=1e-5, atol=1e-6 * oracle.abs().max().item())


@pytest.mark.parametrize(("head", "classes"), [("softmax", 2), ("softmax", 7), ("binary", 1)])
@pytest.mark.parametrize("scale", [1.0, 5.0, 12.0])
def test_float32_gradients_of_the_penalty(head, classes, scale):
    features, weight = problem(head, classes, True, scale=scale)
    single = [(h.float(), z.float()) for h, z in domains_of(features, weight)]
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaves = [[t.to(dtype).requires_grad_() for t in domain] for domain in single]
        penalty = hh.alignment_penalty([tuple(pair) for pair in leaves], head=head)
        gradients.append(torch.autograd.grad(penalty, [t for pair in leaves for t in pair]))
    for ours, exact in zip(*gradients, strict=True):
        assert (ours.double() - exact).norm() < 1e-5 * exact.norm()


def test_a_very_confident_batch_has_a_tiny_and_correct_hessian():
    features = torch.ones(4, 3)
    logits = torch.tensor([[25.0, 0.0, -3.0]]).expand(4, 3)
    inner, exact = (hh.frobenius_inner(*[(features.to(t), logits.to(t))] * 2) for t in (torch.float32, torch.float64))
    assert 0 < exact < 1e-18
    torch.testing.assert_close(inner.double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("head", ["softmax", "binary"])
@pytest.mark.parametrize("sizes", [(6,), (6, 6, 6)])
def test_coinciding_or_single_domains_have_no_penalty(head, sizes):
    (features, *_), weight = problem(head, 3, True, sizes=(6,))
    weight = weight.requires_grad_()
    domains = domains_of([features] * len(sizes), weight)
    assert hh.alignment_penalty(domains, head=head).abs() < 1e-14
    distance = hh.frobenius_distance(domains[0], domains[-1], head=head)
    assert distance < 1e-7
    assert torch.autograd.grad(distance, weight)[0].isfinite().all()
    assert hh.spectral_distance(domains[0], domains[-1], head=head) == 0


def test_symmetries():
    features, weight = problem("softmax", 4, True)
    a, b, c = domains_of(features, weight)
    shuffled = tuple(t.flip(0) for t in a)
    torch.testing.assert_close(hh.alignment_penalty([a, b, c]), hh.alignment_penalty([c, shuffled, b]))
    torch.testing.assert_close(hh.frobenius_distance(a, b), hh.frobenius_distance(b, a))
    same_for_all_classes = torch.randn(1, 7, dtype=torch.float64).expand(4, 7)
    assert hh.head_hessian_product(*a, same_for_all_classes).abs().max() < 1e-15  # softmax shift invariance


@every_head
def test_no_direction_has_negative_curvature(head, classes):
    (features, *_), weight = problem(head, classes, True, scale=5.0)
    directions = torch.eye(weight.numel(), dtype=torch.float64).view(-1, *weight.shape)
    logits = logits_of(features, weight)
    rows = [hh.head_hessian_product(features, logits, v, head=head).flatten() for v in directions]
    eigenvalues = torch.linalg.eigvalsh(torch.stack(rows))
    assert eigenvalues.min() >= -1e-15 * eigenvalues.max() * weight.numel()


def test_route_with_fewer_operations_is_taken(monkeypatch):
    taken = []
    for name in ("_gram_over_samples", "_gram_over_classes"):
        monkeypatch.setattr(hh, name, lambda *_, name=name: taken.append(name))
    hh.frobenius_gram([(torch.zeros(32, 512), torch.zeros(32, 65))] * 3)
    hh.frobenius_gram([(torch.zeros(5000, 390), torch.zeros(5000, 1))] * 2, head="binary")
    assert taken == ["_gram_over_samples", "_gram_over_classes"]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda a, b: hh.frobenius_gram([]), "at least one domain"),
        (lambda a, b: hh.frobenius_gram([a, (b[0][:, :1], b[1])]), "share features"),
        (lambda a, b: hh.frobenius_gram([a, (b[0][:0], b[1][:0])]), "no samples"),
        (lambda a, b: hh.head_hessian_product(*a, torch.ones(2, 3)), r"direction must be \(2, 4\)"),
        (lambda a, b: hh.head_hessian_diagonal(a[0], a[1][:2]), "same n samples"),
    ],
)
def test_errors(call, match):
    domain = (torch.ones(3, 3), torch.ones(3, 2))
    with pytest.raises(ValueError, match=match):
        call(domain, domain)

"""Adapters that begin at a decomposition of the weight, against it: SoMA, SORSA, SVFit, SALT, SoKA; and EVA's ranks."""

import math

import pytest
import torch

from fisherexp.adapters import EVA, SALT, SORSA, PiSSA, SoKA, SoMA, SVFit
from fisherexp.adapters.eva import redistributed
from fisherexp.adapters.soka import elbow, even_factors, kronecker_sum, rearranged
from fisherexp.adapters.svfit import rank_of_energy

GENERATOR = torch.Generator().manual_seed(0)
W, G = (torch.randn(6, 8, generator=GENERATOR, dtype=torch.float64) for _ in range(2))  # G: ∂L/∂W'
U, S, VT = torch.linalg.svd(W, full_matrices=False)


def gradients(adapter):
    """Of Σ G ∘ W', by name."""
    adapter.zero_grad()
    (G * adapter.weight(W)).sum().backward()
    return {name: p.grad for name, p in adapter.named_parameters()}


def stirred(adapter, size=0.1):
    with torch.no_grad():
        for p in adapter.parameters():
            p += size * torch.randn(p.shape, generator=GENERATOR, dtype=p.dtype)
    return adapter


def test_soma_takes_the_smallest_components():
    adapter = SoMA(W, rank=2, alpha=6)
    taken = adapter.scale * adapter.up_start @ adapter.down_start
    torch.testing.assert_close(torch.linalg.svdvals(taken)[:2], S[-2:])
    torch.testing.assert_close(U[:, :4].T @ taken, torch.zeros(4, 8, dtype=torch.float64))  # the others are untouched


def test_somas_first_gradient_is_far_below_pissas():
    """√s scales it: with the spectrum 8, 4, …, 2^-2 the smallest two have a hundredth of the largest."""
    weight = U @ torch.diag(2.0 ** torch.arange(3, -3, -1, dtype=torch.float64)) @ VT
    lengths = []
    for kind in (PiSSA, SoMA):
        adapter = kind(weight, rank=2)
        (G * adapter.weight(weight)).sum().backward()
        lengths.append(sum(p.grad.square().sum() for p in adapter.parameters()) ** 0.5)
    assert lengths[0] > 3 * lengths[1]


@pytest.mark.parametrize("alpha", [None, 6.0])
def test_sorsas_penalty_is_that_of_both_factors(alpha):
    adapter = SORSA(W, rank=3, alpha=alpha, penalty_weight=2.0)
    assert adapter.penalty() < 1e-12
    adapter.penalty().backward()
    assert not any(p.grad.any() for p in (adapter.left, adapter.right))  # and no direction made of rounding
    p, q = (x.detach() for x in (stirred(adapter).left, adapter.right))
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(adapter.penalty(), 2 * ((p.T @ p - eye).norm() + (q @ q.T - eye).norm()))


@pytest.mark.parametrize("alpha", [None, 6.0])
def test_sorsa_takes_as_much_of_the_triplets_as_its_scale(alpha):
    """c P diag(λ) Q begins at c times the r largest of W, also for α ≠ r: ∂P = c G V diag(s), ∂λ = c (Uᵀ G V)_ii."""
    adapter, scale = SORSA(W, rank=3, alpha=alpha), 1.0 if alpha is None else 2.0
    torch.testing.assert_close(adapter.values.detach(), S[:3])
    torch.testing.assert_close(adapter.weight(W), W)
    with torch.no_grad():
        adapter.values.zero_()
    torch.testing.assert_close(adapter.weight(W), W - scale * U[:, :3] @ S[:3].diag() @ VT[:3])
    found = gradients(SORSA(W, rank=3, alpha=alpha))
    torch.testing.assert_close(found["values"], scale * (U.T @ G @ VT.T).diagonal()[:3])
    sign = (U[:, :3] * adapter.left).sum(0).sign()  # common to both vectors of a triplet
    torch.testing.assert_close(found["left"], scale * (G @ VT[:3].T * S[:3]) * sign)


def test_a_step_of_sorsa_is_none_of_pissa():
    """The same function at the start, with other gradients: a step of SGD leads elsewhere."""
    moved = []
    for adapter in (SORSA(W, rank=3), PiSSA(W, rank=3)):
        torch.testing.assert_close(adapter.weight(W), W)
        gradients(adapter)
        torch.optim.SGD(adapter.parameters(), 0.01).step()
        moved.append(adapter.weight(W).detach() - W)
    assert (moved[0] - moved[1]).norm() > 0.1 * moved[1].norm()


def test_sorsas_drift_is_how_far_values_and_vectors_have_gone():
    """One triplet turned by 60 and 30 degrees and made longer, one turned over, which is no turn, one left alone."""
    adapter = SORSA(W, rank=3, alpha=6.0)
    assert all(drift.abs().max() < 1e-12 for drift in adapter.drift())
    with torch.no_grad():
        adapter.left[:, 0] = 5 * (U[:, 0] * math.cos(math.pi / 3) + U[:, 4] * math.sin(math.pi / 3))
        adapter.right[0] = VT[0] * math.cos(math.pi / 6) + VT[5] * math.sin(math.pi / 6)
        adapter.left[:, 1] *= -1
        adapter.values[1] -= 0.25  # of a scale of 2
    values, vectors = adapter.drift()
    torch.testing.assert_close(values, torch.tensor([0.0, 0.5, 0.0], dtype=torch.float64))
    turned = 1 - math.cos(math.pi / 3) * math.cos(math.pi / 6)
    torch.testing.assert_close(vectors, torch.tensor([turned, 0.0, 0.0], dtype=torch.float64), atol=1e-12, rtol=0)


def test_svfit_trains_the_values_alone():
    adapter = SVFit(W, rank=3)
    torch.testing.assert_close(gradients(adapter)["values"], (U.T @ G @ VT.T).diagonal()[:3])
    inner = U.T @ (stirred(adapter).weight(W) - W) @ VT.T
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-12, rtol=0)
    assert (inner.diagonal().abs() > 1e-6).tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize(("energy", "rank"), [(0.5, 1), (0.6, 2), (0.99, 3), (1.0, 3)])
def test_the_rank_of_an_energy(energy, rank):
    """Squares 9, 4, 3 of 16: 9 / 16 = 0.5625, 13 / 16 = 0.8125."""
    assert rank_of_energy(torch.tensor([3.0, 2.0, math.sqrt(3.0)]), energy) == rank


@pytest.mark.parametrize("relu", ["diag", "all", "none"])
def test_salts_first_gradients(relu):
    """dX = 0 since Y = 0; dY = Xᵀ H of the rest block H of Uᵀ G V, of which relu over all lets the diagonal through."""
    adapter = SALT(W, rank=2, share=0.5, relu=relu)
    found, inner = gradients(adapter), U.T @ G @ VT.T
    torch.testing.assert_close(found["factor"], (inner.diagonal() * S)[:3])
    torch.testing.assert_close(found["shift"], inner.diagonal()[:3])
    assert not found["tall"].any()
    rest = inner[3:, 3:]
    passed = torch.diag(rest.diagonal()) if relu == "all" else rest
    torch.testing.assert_close(found["flat"], adapter.tall.detach().T @ passed)
    assert (rest - torch.diag(rest.diagonal())).norm() > 0.1


@pytest.mark.parametrize(("relu", "least"), [("diag", 0.0), ("all", 0.0), ("none", -5.0)])
def test_salt_clamps_what_it_says(relu, least):
    adapter = stirred(SALT(W, rank=2, share=0.5, relu=relu), size=2.0)
    with torch.no_grad():
        adapter.factor.fill_(1)
        adapter.shift.copy_(-S[:3] - 5)
    inner = U.T @ adapter.weight(W) @ VT.T
    torch.testing.assert_close(inner.diagonal()[:3], torch.full((3,), least, dtype=torch.float64))
    off = inner - torch.diag(inner.diagonal())
    assert (off.min() < -0.1) == (relu != "all")


@pytest.mark.parametrize("relu", ["diag", "none"])
@pytest.mark.parametrize("below", [0, 2])
def test_salts_thin_factors_are_the_whole_block(relu, below):
    """The same update, and gradients, as from Σ' formed; a singular value cut at zero adds one to the rank."""
    adapter = stirred(SALT(W, rank=2, share=0.5, relu=relu))
    with torch.no_grad():
        adapter.shift[:below] -= S[:below] + 5
    left, right = adapter.factors()
    whole = adapter.left @ (adapter.middle() - torch.diag(adapter.values)) @ adapter.right
    torch.testing.assert_close(left @ right, whole)
    assert left.shape[1] == 3 + 2 + (below if relu == "diag" else 0)
    wanted = torch.autograd.grad((G * whole).sum(), list(adapter.parameters()))
    found = torch.autograd.grad((G * (left @ right)).sum(), list(adapter.parameters()))
    torch.testing.assert_close(found, wanted)


def test_salts_penalty_and_a_share_of_all_values():
    adapter = stirred(SALT(W, rank=2, share=0.5, penalty_weight=3.0))
    moved = (adapter.factor - 1) * S[:3] + adapter.shift
    torch.testing.assert_close(adapter.penalty(), 3 * (moved.norm() + (adapter.tall @ adapter.flat).norm()))
    whole = SALT(W, rank=2, share=1.0)
    assert whole.num_trainable() == 2 * 6
    with torch.no_grad():
        whole.factor.fill_(2.0)
    torch.testing.assert_close(whole.weight(W), 2 * W)


def test_the_penalty_is_smooth_at_the_start():
    adapter = SALT(W, rank=2, penalty_weight=1.0)
    adapter.penalty().backward()
    assert all(p.grad.isfinite().all() for p in adapter.parameters())


@pytest.mark.parametrize("terms", [1, 3, 6])
def test_sokas_sum_is_the_best_of_so_many_products(terms):
    """Eckart–Young of the rearranged matrix: what is left has the norm of the other singular values."""
    adapter = SoKA(W, terms=terms)
    taken = kronecker_sum(adapter.left_start, adapter.right_start)
    values = torch.linalg.svdvals(rearranged(W, (2, 4)))
    torch.testing.assert_close((W - taken).norm(), values[terms:].square().sum().sqrt())
    torch.testing.assert_close(taken, sum(map(torch.kron, adapter.left_start, adapter.right_start)))


def test_soka_takes_out_what_it_trains():
    adapter = SoKA(W, terms=2)
    before = sum(map(torch.kron, adapter.left_start, adapter.right_start))
    stirred(adapter)
    torch.testing.assert_close(adapter.weight(W), W - before + sum(map(torch.kron, adapter.left, adapter.right)))


@pytest.mark.parametrize("energy", [0.999, 0.3])
def test_the_number_of_terms_is_read_off_the_spectrum(energy):
    """Three products of like size and one per cent of noise: three by the elbow, fewer by a low energy."""
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randn(3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    left = left / left.flatten(1).norm(dim=1)[:, None, None]
    planted = kronecker_sum(left, right)
    noisy = planted + 0.01 * planted.std() * torch.randn(16, 16, generator=generator, dtype=torch.float64)
    found = len(SoKA(noisy, energy=energy).left)
    assert found == 3 if energy > 0.9 else found < 3


@pytest.mark.parametrize(("values", "wanted"), [([9.0, 8.0, 1.0, 0.9, 0.8], 2), ([9.0, 1.0, 0.9], 1), ([4.0, 3.0], 1)])
def test_the_elbow(values, wanted):
    assert elbow(torch.tensor(values)) == wanted


@pytest.mark.parametrize(("size", "wanted"), [(12, (3, 4)), (256, (16, 16)), (7, (1, 7))])
def test_even_factors(size, wanted):
    assert even_factors(size) == wanted


def test_evas_ranks_are_those_of_the_largest_shares():
    ratios = {"a": torch.tensor([0.5, 0.1, 0.05, 0.01]), "b": torch.tensor([0.4, 0.3, 0.2, 0.15])}
    assert redistributed(ratios, 2) == {"a": 1, "b": 3}
    assert redistributed({name: values[:2] for name, values in ratios.items()}, 2) == {"a": 2, "b": 2}
    assert redistributed({"a": ratios["a"] / 100, "b": ratios["b"]}, 2) == {"a": 0, "b": 4}


def test_eva_keeps_the_scale_of_the_rank_that_was_asked_for():
    rows = torch.eye(8, dtype=torch.float64)[:3]
    adapter = EVA(W, rows, rank=2, alpha=4.0)
    assert adapter.scale == 2.0
    torch.testing.assert_close(gradients(adapter)["up"], 2 * G @ rows.T)


def test_evas_gradient_is_as_long_as_the_variance_it_explains():
    """E‖dB‖² = tr(A Σ Aᵀ) · E‖δ‖² for gradients δ of the outputs that do not depend on the inputs."""
    spread = torch.tensor([10.0, 5.0, 1.0, 1.0, 0.5, 0.5, 0.1, 0.1], dtype=torch.float64)
    x, delta = (torch.randn(20000, n, generator=GENERATOR, dtype=torch.float64) for n in (8, 6))
    x = x * spread.sqrt()
    for rows in ([0, 1], [6, 7]):
        adapter = EVA(W, torch.eye(8, dtype=torch.float64)[rows], rank=2)
        samples = torch.einsum("nm,nr->nmr", delta, x @ adapter.down.detach().T)
        expected = spread[rows].sum() * 6
        torch.testing.assert_close(samples.square().sum((1, 2)).mean(), expected, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SORSA(W, rank=7), "rank=7 is above 6"),
        (lambda: SVFit(W, rank=0), "rank=0 must be at least 1"),
        (lambda: SALT(W, rank=0), "rank=0 must be at least 1"),
        (lambda: SoKA(W, terms=7), "terms=7 is not within 1 … 6"),
        (lambda: EVA(W, torch.ones(2, 5), rank=2), "do not fit a weight"),
    ],
)
def test_what_a_weight_does_not_have_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""Neural-collapse metrics: exactly collapsed features, published formulas written out densely, invariances."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fisherexp.metrics.neural_collapse import BLOCK, NAMES, ClassMoments, collapse, disagreements
from fisherexp.models.heads import simplex_etf

C, D = 4, 9
torch.manual_seed(0)
LABELS = torch.arange(C).repeat_interleave(torch.tensor([30, 20, 25, 15]))[torch.randperm(90)]
MEANS = 3 * torch.randn(C, D, dtype=torch.float64)
FEATURES = MEANS[LABELS] + torch.randn(90, D, dtype=torch.float64)
WEIGHT, BIAS = torch.randn(C, D, dtype=torch.float64), torch.randn(C, dtype=torch.float64)


def measured(features=FEATURES, labels=LABELS, weight=WEIGHT, bias=BIAS, batches=1) -> dict[str, float]:
    moments = ClassMoments(len(weight), features.shape[1])
    for part, members in zip(features.chunk(batches), labels.chunk(batches), strict=True):
        moments.update(part, members)
    wrong = disagreements(features, moments.means, weight, bias)
    return collapse(moments, weight, bias) | {"nc4": wrong.double().mean().item()}


def test_published_formulas():
    """Each one as printed, with dense matrices and loops over classes."""
    found = measured()
    means = torch.stack([FEATURES[c == LABELS].mean(0) for c in range(C)])
    centered = means - means.mean(0)
    within = sum(torch.outer(h - means[y], h - means[y]) for h, y in zip(FEATURES, LABELS, strict=True)) / 90
    between = sum(torch.outer(m, m) for m in centered) / C
    trace = torch.trace(within @ torch.linalg.pinv(between, rtol=1e-8)).item()
    assert found["nc1_notebook"] == pytest.approx(trace)
    assert found["nc1"] == pytest.approx(trace / C)
    for name, rows in (("means", centered), ("weights", WEIGHT)):
        lengths = [row.norm().item() for row in rows]
        mean = sum(lengths) / C
        deviation = math.sqrt(sum((length - mean) ** 2 for length in lengths) / (C - 1))
        assert found[f"nc2_equinorm_{name}"] == pytest.approx(deviation / mean)
        cosines = [F.cosine_similarity(rows[i], rows[j], dim=0) for i in range(C) for j in range(C) if i != j]
        assert found[f"nc2_equiangular_{name}"] == pytest.approx(torch.stack(cosines).std().item())
        over_n = np.std([cosine.item() for cosine in cosines])
        assert found[f"nc2_equiangular_{name}_population"] == pytest.approx(over_n)
        assert over_n < 0.97 * found[f"nc2_equiangular_{name}"]
        assert found[f"nc2_angle_{name}"] == pytest.approx(sum(abs(c.item() + 1 / (C - 1)) for c in cosines) / 12)
    nc3 = (WEIGHT / WEIGHT.norm() - centered / centered.norm()).norm().item()
    assert found["nc3"] == pytest.approx(nc3)
    assert found["nc3_notebook"] == pytest.approx(nc3**2)
    ideal = (torch.eye(C) - torch.ones(C, C) / C).double() / math.sqrt(C - 1)
    for name, product in (("zhu_nc2", WEIGHT @ WEIGHT.T), ("zhu_nc3", WEIGHT @ centered.T)):
        assert found[name] == pytest.approx((product / product.norm() - ideal).norm().item())
    assert found["zhu_bias"] == pytest.approx((WEIGHT @ means.mean(0) + BIAS).norm().item())
    wrong = [(WEIGHT @ h + BIAS).argmax() != torch.stack([(h - m).norm() for m in means]).argmin() for h in FEATURES]
    assert found["nc4"] == pytest.approx(sum(map(int, wrong)) / 90)


@pytest.mark.parametrize(("sizes", "same"), [((30, 20, 25, 15), False), ((20, 20, 20, 20), True)])
def test_centered_by_the_mean_of_all_samples_as_in_the_code_of_zhu(sizes, same):
    """Their sums over samples, class by class; only classes of unequal size tell this from the mean of class means."""
    labels = torch.arange(C).repeat_interleave(torch.tensor(sizes))
    features = FEATURES[: len(labels)] + MEANS[labels]
    found, everything = measured(features, labels), features.sum(0) / len(features)
    means = torch.stack([features[c == labels].sum(0) / sizes[c] for c in range(C)])
    within = sum(torch.outer(h - means[y], h - means[y]) for h, y in zip(features, labels, strict=True)) / len(labels)
    between = sum(torch.outer(mean - everything, mean - everything) for mean in means) / C
    relation = WEIGHT @ (means - everything).T
    ideal = (torch.eye(C) - torch.ones(C, C) / C).double() / math.sqrt(C - 1)
    expected = {
        "nc1": torch.trace(within @ torch.linalg.pinv(between, rtol=1e-8)).item() / C,
        "zhu_nc3": (relation / relation.norm() - ideal).norm().item(),
        "zhu_bias": (WEIGHT @ everything + BIAS).norm().item(),
    }
    for name, value in expected.items():
        assert found[f"{name}_samples"] == pytest.approx(value)
        assert (found[name] == pytest.approx(value)) == same


@pytest.mark.parametrize("dimensions", [C - 1, D])
@pytest.mark.parametrize("labels", [LABELS, torch.arange(C).repeat(20)], ids=["unequal", "equal"])
def test_collapsed_features_give_zeros(dimensions, labels):
    """All of them; but where classes differ in size, what is centered by samples is not at the center of the means."""
    etf = simplex_etf(C, dimensions)
    shift = torch.randn(dimensions, dtype=torch.float64)
    weight = 0.3 * etf
    found = measured(2.0 * etf[labels] + shift, labels, weight, -weight @ shift)
    assert found.keys() == {*NAMES, "nc4"}
    off_center = {name: found.pop(name) for name in ("zhu_nc3_samples", "zhu_bias_samples")}
    assert max(map(abs, found.values())) < 1e-7
    assert (max(off_center.values()) < 1e-7) == (labels is not LABELS)


def test_streaming_is_exact():
    """In any batches, in blocks within a batch, and far away from the origin."""
    whole = measured()
    for batches in (3, 45):
        assert measured(batches=batches) == pytest.approx(whole, rel=1e-10)
    repeated = measured(FEATURES.repeat(100, 1), LABELS.repeat(100))
    assert len(FEATURES) * 100 > 2 * BLOCK
    assert repeated == pytest.approx(whole, rel=1e-10)
    # NC1 of features with a spread of 1e-3 at a distance of 1e6: a plain E[hhᵀ] - μμᵀ keeps no digit of it.
    small, far = 1e-3 * FEATURES, 1e-3 * FEATURES + 1e6
    assert measured(far, batches=9)["nc1"] == pytest.approx(measured(small)["nc1"], rel=1e-6)


def test_a_pseudo_inverse_drops_no_real_direction():
    """The smallest real eigenvalue of Σ_B is 1e-18 of the largest: below every default cut-off."""
    means = torch.zeros(3, 5, dtype=torch.float64)
    means[0, 0], means[1, 1] = 1e4, 1e-5
    noise = 1e-6 * torch.randn(300, 5, dtype=torch.float64)
    labels = torch.arange(3).repeat(100)
    moments = ClassMoments(3, 5)
    moments.update(means[labels] + noise, labels)
    found = collapse(moments, torch.randn(3, 5, dtype=torch.float64))["nc1_notebook"]
    centered = moments.means - moments.means.mean(0)
    basis, _ = torch.linalg.qr(centered.T[:, :2])  # Σ_B lives in this plane: invert it there
    inside = centered @ basis
    scaled = torch.diag(1 / inside.norm(dim=0))  # equilibrated, an ordinary inverse keeps all digits
    between = scaled @ (inside.T @ inside / 3) @ scaled
    exact = torch.trace(scaled @ basis.T @ moments.within @ basis @ scaled @ torch.linalg.inv(between))
    assert found == pytest.approx(exact.item(), rel=1e-3)


def test_invariances():
    found = measured()
    rotation, _ = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64))
    assert measured(FEATURES @ rotation, weight=WEIGHT @ rotation) == pytest.approx(found)

    stretched = torch.randn(D, C - 1, dtype=torch.float64)  # NC1: any invertible map of the space the means span
    low = FEATURES @ stretched
    bent = low @ torch.randn(C - 1, C - 1, dtype=torch.float64)
    weight = torch.randn(C, C - 1, dtype=torch.float64)
    assert measured(bent, weight=weight)["nc1"] == pytest.approx(measured(low, weight=weight)["nc1"])

    larger = measured(5 * FEATURES, weight=7 * WEIGHT)
    scale_free = [name for name in NAMES if not name.startswith("zhu_bias")]
    assert [larger[name] for name in scale_free] == pytest.approx([found[name] for name in scale_free])

    shift = torch.randn(D, dtype=torch.float64)
    assert measured(FEATURES + shift, bias=BIAS - WEIGHT @ shift) == pytest.approx(found)


def test_the_global_mean_weighs_classes_alike():
    """Repeating the samples of one class moves no class mean, so nothing but NC1, NC4 and what is centered by samples
    may change."""
    extra = torch.cat([FEATURES, FEATURES[LABELS == 0]]), torch.cat([LABELS, LABELS[LABELS == 0]])
    names = [name for name in NAMES if not name.startswith("nc1") and not name.endswith("_samples")]
    one, other = measured(), measured(*extra)
    assert [other[name] for name in names] == pytest.approx([one[name] for name in names])


def test_a_class_without_samples_is_named():
    moments = ClassMoments(C, D)
    moments.update(FEATURES[LABELS != 2], LABELS[LABELS != 2])
    with pytest.raises(ValueError, match=r"^no samples of class 2: it has no mean$"):
        collapse(moments, WEIGHT)

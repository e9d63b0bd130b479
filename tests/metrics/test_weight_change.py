"""Matrices whose singular values and vectors are known: ranks, norms, intruders; what randomized ones leave open."""

import math

import pytest
import torch

from fisherexp.metrics.weight_change import weight_change, weight_changes

M, N = 96, 80


def orthonormal(rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64))[0]


@pytest.fixture(scope="module")
def known():
    """W = U diag(s) Vᵀ, and a direction a that is orthogonal to all of U."""
    frame, right = orthonormal(M, M), orthonormal(N, N, seed=1)
    values = torch.linspace(4, 1, N, dtype=torch.float64)
    left = frame[:, :N]
    return {"weight": left * values @ right.T, "left": left, "values": values, "right": right, "outside": frame[:, N]}


def planted(known, cosine, size, place=0, right=40):
    """W + size · a vᵀ, a at this cosine from u_place and orthogonal to the others; v = v_right."""
    direction = cosine * known["left"][:, place] + math.sqrt(1 - cosine**2) * known["outside"]
    return known["weight"] + size * torch.outer(direction, known["right"][:, right])


def test_rank_norm_and_values_of_a_known_change(known):
    sizes = torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64)
    change = known["left"][:, [2, 30, 70]] * sizes @ known["right"][:, [2, 30, 70]].T
    found = weight_change(known["weight"], known["weight"] + change)
    assert found["rank"] == 3
    assert found["stable_rank"].item() == pytest.approx((25 + 9 + 1) / 25)
    norm = known["values"].square().sum().sqrt().item()
    assert found["relative_norm"].item() == pytest.approx(math.sqrt(35) / norm)
    torch.testing.assert_close(found["values_change"][:3], sizes)
    torch.testing.assert_close(found["values_before"], known["values"][:10])
    moved = known["values"].clone()
    moved[[2, 30, 70]] += sizes
    torch.testing.assert_close(found["values_after"], moved.sort(descending=True).values[:10])
    assert found["share_in_top"].item() == pytest.approx(25 / 35)  # of 2, 30, 70 the first is among the leading ten
    assert found["overlap"].item() == pytest.approx(0.9)  # the thirty-first has come in, and put the tenth out
    assert found["intruders"] == found["undecided"] == found["rest"] == 0


@pytest.mark.parametrize(("cosine", "intruders"), [(0.0, 1), (0.3, 1), (0.45, 1), (0.55, 0), (0.9, 0)])
@pytest.mark.parametrize("size", [1e3, -1e3])
def test_a_planted_direction_is_an_intruder_if_it_is_far_from_all_old_ones(known, cosine, intruders, size):
    found = weight_change(known["weight"], planted(known, cosine, size))
    assert found["intruders"] == intruders
    assert found["cosines"][0].item() == pytest.approx(cosine, abs=5e-3)


def test_epsilon_and_top_decide_what_counts(known):
    after = planted(known, 0.3, 1e3)
    assert weight_change(known["weight"], after, epsilon=0.2)["intruders"] == 0
    # An old direction outside the leading ones counts as old, too.
    assert weight_change(known["weight"], planted(known, 0.9, 1e3, place=60), top=1)["intruders"] == 0
    weak = planted(known, 0.0, 2.5, right=79)  # in the middle of the spectrum
    assert weight_change(known["weight"], weak, top=10)["intruders"] == 0
    assert weight_change(known["weight"], weak, top=80)["intruders"] == 1


def test_nothing_changed_and_other_values_on_the_same_vectors_are_no_intruders(known):
    same = weight_change(known["weight"], known["weight"])
    figures = ("rank", "stable_rank", "relative_norm", "share_in_top", "intruders")
    assert [same[name].item() for name in figures] == [0] * 5
    assert same["overlap"].item() == pytest.approx(1)
    other = known["left"] * known["values"].flip(0) ** 2 @ known["right"].T
    assert weight_change(known["weight"], other)["intruders"] == 0
    assert weight_change(known["weight"], -known["weight"])["intruders"] == 0


def test_random_directions_are_all_intruders():
    """The control: of 512 dimensions none of ten comes near one of 64."""
    before, after = (orthonormal(512, 64, seed) * torch.linspace(2, 1, 64) for seed in (2, 3))
    assert weight_change(before, after)["intruders"] == 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_rounding_leaves_is_no_rank(known, dtype):
    weight = known["weight"].to(dtype)
    change = (3 * known["left"][:, :2] @ known["right"][:, :2].T).to(dtype)
    found = weight_change(weight, weight + change)
    assert found["rank"] == 2
    assert (found["values_change"] > 0).sum() == 10  # the control: counted without a bound it would be full


def test_randomized_it_agrees_and_says_what_it_leaves_open(known):
    after = planted(known, 0.3, 1e3, place=60)
    exact = weight_change(known["weight"], after)
    state = torch.get_rng_state()
    near = weight_change(known["weight"], after, components=80)
    assert torch.equal(state, torch.get_rng_state())
    for name in ("rank", "stable_rank", "relative_norm", "intruders", "overlap", "values_change", "cosines"):
        torch.testing.assert_close(near[name], exact[name], rtol=1e-5, atol=1e-5)
    assert near["undecided"] == near["rest"] == 0
    # Of twenty components u_60 is none: the direction has cosine 0 with those, and might have 1 with another.
    open_ = weight_change(known["weight"], planted(known, 0.9, 1e3, place=60), components=20)
    assert exact["intruders"] == 1
    assert open_["intruders"] == open_["undecided"] == 1
    part = weight_change(known["weight"], 2 * known["weight"], components=20)
    squares = known["values"].square()
    assert part["rest"].item() == pytest.approx((squares[20:].sum() / squares.sum()).item(), abs=0.02)


def test_layers_of_one_shape_together_are_as_alone(monkeypatch, known):
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (12, 9), "b": (7, 20), "c": (12, 9), "d": (12, 9)}
    before = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    after = {name: matrix + torch.randn(matrix.shape, generator=generator) for name, matrix in before.items()}
    monkeypatch.setattr("fisherexp.metrics.weight_change.NUMBERS_AT_ONCE", 2 * 12 * 9)
    found = weight_changes(before, after, top=5)
    assert [*found] == [*shapes]
    for name, figures in found.items():
        for figure, value in weight_change(before[name], after[name], top=5).items():
            torch.testing.assert_close(figures[figure], value)


@pytest.mark.parametrize(
    ("after", "components", "message"),
    [
        (torch.zeros(3, 4), None, r"weights \(4, 4\) and \(3, 4\) have different shapes"),
        (torch.zeros(4, 4), 3, "components=3 are fewer than the 4 that are looked at"),
    ],
)
def test_what_cannot_be_compared_is_refused(after, components, message):
    with pytest.raises(ValueError, match=message):
        weight_change(torch.zeros(4, 4), after, components=components)

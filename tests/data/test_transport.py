"""Transport problems: what the families promise, seeds, and one clear line for what has no solution."""

import numpy as np
import pytest
import torch

from fisherexp.data.errors import DataError
from fisherexp.data.transport import image_pair, instance, point_clouds, random_assignment, read_instance


def weights(*values):
    return torch.tensor(values, dtype=torch.float64)


COST = torch.zeros(2, 3, dtype=torch.float64)
A, B = weights(0.5, 0.5), weights(0.2, 0.3, 0.5)


def test_random_assignment_is_uniform_and_depends_on_the_seed_alone():
    problem = random_assignment(50, eta=3.0, seed=1)
    assert torch.equal(problem.a, torch.full((50,), 0.02, dtype=torch.float64))
    assert problem.cost.min() >= 0
    assert problem.cost.max() <= 1
    assert problem.cost.mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(problem.cost, random_assignment(50, eta=9.0, seed=1).cost)
    assert not torch.equal(problem.cost, random_assignment(50, eta=3.0, seed=2).cost)


def test_point_clouds_have_squared_distances():
    problem = point_clouds(6, 4, eta=1.0, dimension=3)
    assert problem.cost.shape == (6, 4)
    centered = problem.cost - problem.cost.mean(0) - problem.cost.mean(1, keepdim=True) + problem.cost.mean()
    assert torch.linalg.matrix_rank(centered, rtol=1e-9) == 3  # -2 x·y, and only of squared distances
    assert problem.a.sum() == pytest.approx(1)
    assert problem.b.sum() == pytest.approx(1)


@pytest.mark.parametrize(("distance", "corner"), [("squared", 13 / 13), ("absolute", 5 / 5)])
def test_image_costs_are_distances_between_pixels(distance, corner):
    left, right = torch.zeros(3, 4), torch.zeros(3, 4)
    left[0, 0] = right[2, 3] = 1
    problem = image_pair(left, right, eta=1.0, distance=distance, background=0.5)
    assert problem.cost[0, -1].item() == pytest.approx(corner)
    expected = {"squared": 1 / 13, "absolute": 1 / 5}[distance]
    assert problem.cost[0, 1].item() == problem.cost[0, 4].item() == pytest.approx(expected)
    assert problem.a[0].item() == pytest.approx(1.5 / (1.5 + 11 * 0.5))
    assert problem.b[-1].item() == problem.a[0].item()


def test_own_file(tmp_path):
    np.savez(tmp_path / "mine.npz", a=A, b=B, cost=COST)
    problem = read_instance(tmp_path / "mine.npz", eta=2.0)
    assert torch.equal(problem.a, A)
    assert problem.cost.shape == (2, 3)
    assert problem.eta == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cost": COST.T}, r"shapes \(2,\), \(3,\) and \(3, 2\)"),
        ({"a": weights(1.0, 0.0)}, r"a must be positive: a\[1\] = 0; leave out points"),
        ({"b": weights(0.5, 0.7, -0.2)}, r"b\[2\] = -0.2"),
        ({"a": weights(0.5, 0.6)}, "a sums to 1.1 but b to 1"),
        ({"cost": COST + float("nan")}, "cost has 6 entries that are not finite"),
        ({"eta": 0.0}, "eta=0.0"),
        ({"eta": float("inf")}, "eta=inf"),
        ({"a": A.float()}, "one type of floats"),
    ],
)
def test_what_has_no_solution_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        instance(**({"a": A, "b": B, "cost": COST, "eta": 1.0} | change))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": A, "b": B}, "has no cost; it has a, b"),
        ({"a": -A, "b": B, "cost": COST}, r"mine.npz: a must be positive"),
        ({"a": np.array(["x", "y"]), "b": B, "cost": COST}, "not a readable .npz file"),
    ],
)
def test_malformed_files_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        read_instance(tmp_path / "mine.npz", eta=1.0)
    assert "mine.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_files_are_named(tmp_path):
    (tmp_path / "mine.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(DataError, match=r"mine.npz is not a readable .npz file"):
        read_instance(tmp_path / "mine.npz", eta=1.0)

"""TSVM and its reconstructed extension: orthogonality, and cases in which the answer is known."""

import pytest
import torch

from fisherexp.methods.merging.r_tsvm import reweighted_merge, row_weights
from fisherexp.methods.merging.tsvm import merged_matrix, polar, singular_merge


def matrix(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(8, 3), (3, 8), (5, 5)])
def test_polar_factor_is_orthogonal_and_the_nearest(shape):
    given = matrix(*shape)
    found = polar(given)
    tall = found if shape[0] >= shape[1] else found.T
    torch.testing.assert_close(tall.T @ tall, torch.eye(min(shape), dtype=torch.float64))
    others = torch.linalg.qr(matrix(max(shape), min(shape), seed=1)).Q
    other = others if shape[0] >= shape[1] else others.T
    assert (given - found).norm() < (given - other).norm()


def test_orthogonal_experts_are_summed_after_truncation():
    left, right = torch.linalg.qr(matrix(8, 8)).Q, torch.linalg.qr(matrix(6, 6, seed=1)).Q
    values = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    deltas = [left[:, s] @ values @ right[s] for s in ([0, 1, 2], [3, 4, 5])]
    truncated = [left[:, s] @ values[:2, :2] @ right[s] for s in ([0, 1], [3, 4])]
    torch.testing.assert_close(merged_matrix(deltas, 2), sum(truncated))


def test_order_of_the_experts_does_not_matter():
    deltas = [matrix(8, 6, seed=seed) for seed in range(3)]
    torch.testing.assert_close(merged_matrix(deltas, 2), merged_matrix(deltas[::-1], 2))


def test_an_expert_that_did_not_move_adds_nothing():
    moved = matrix(8, 6)
    still = torch.zeros_like(moved)
    left, values, right = torch.linalg.svd(moved, full_matrices=False)
    truncated = left[:, :3] * values[:3] @ right[:3]
    found = merged_matrix([moved, still], 3)
    torch.testing.assert_close(torch.linalg.svdvals(found)[:3], values[:3])
    assert torch.linalg.matrix_rank(found) == 3
    # Its arbitrary singular vectors may turn ours, but not stretch the change.
    assert found.norm().item() == pytest.approx(truncated.norm().item())


def test_without_its_additions_the_reconstruction_is_tsvm_to_the_bit(base, models):
    deltas = [{name: model[name] - base[name] for name in base} for model in models]
    plain, extended = singular_merge(deltas), reweighted_merge(deltas, 0.01, reweight=False, adapt=False)
    assert all(torch.equal(plain[name], extended[name]) for name in plain)


def test_rows_are_weighted_by_outliers_alone():
    quiet = torch.ones(4, 50, dtype=torch.float64)
    loud = quiet.clone()
    loud[2, 7] = 100.0
    weights = row_weights([quiet, loud])
    assert weights[:, [0, 1, 3]].tolist() == [[1] * 3] * 2
    assert weights[:, 2].tolist() == [0, 2]


def test_ranks_follow_sparsity():
    deltas = []
    for number in range(2):
        sparse, here = torch.zeros(8, 8, dtype=torch.float64), slice(2 * number, 2 * number + 2)
        sparse[here, here] = matrix(2, 2, seed=number)
        deltas.append({"dense": matrix(8, 8, seed=number), "sparse": sparse})
    for adapt, rank in ((True, 1), (False, 2)):  # of the sparse layer, for each expert; the dense one keeps all four
        merged = reweighted_merge(deltas, 0.01, reweight=False, adapt=adapt)
        assert torch.linalg.matrix_rank(merged["sparse"]) == 2 * rank
        assert torch.linalg.matrix_rank(merged["dense"]) == 8


def test_layers_that_no_expert_changed_change_nothing():
    drawn = [matrix(16, 16, seed=number) for number in (1, 2)]
    deltas = [{"dense": change, "sparse": change * (matrix(16, 16) > 0)} for change in drawn]
    frozen = {f"frozen {number}": torch.zeros(16, 16, dtype=torch.float64) for number in range(6)}
    alone, beside = (reweighted_merge([delta | more for delta in deltas], 0.01) for more in ({}, frozen))
    assert all(torch.equal(beside[name], merged) for name, merged in alone.items())
    assert not any(beside[name].any() for name in frozen)
    assert not torch.equal(alone["sparse"], reweighted_merge(deltas, 0.01, adapt=False)["sparse"])  # ranks do count

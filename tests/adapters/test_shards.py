"""MiSS and Bone against loops over shards and blocks."""

import pytest
import torch

from fisherexp.adapters import Bone, MiSS

W = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def stirred(adapter):
    with torch.no_grad():
        for p in adapter.parameters():
            p.normal_(generator=torch.Generator().manual_seed(1))
    return adapter


@pytest.mark.parametrize("rank", [1, 3, 4, 8])  # three does not divide eight
def test_miss_adds_a_row_of_its_matrix_to_each_column(rank):
    adapter = stirred(MiSS(W, rank))
    wanted = W.clone()
    for j in range(8):
        wanted[:, j] += adapter.shard[j % rank]
    torch.testing.assert_close(adapter.weight(W), wanted)


@pytest.mark.parametrize("rank", [2, 4])
def test_miss_sums_the_pieces_of_its_inputs(rank):
    """y = W x + Dᵀ Σ_g x^(g), as the paper has it."""
    adapter, x = stirred(MiSS(W, rank)), torch.randn(8, dtype=torch.float64)
    torch.testing.assert_close(adapter.weight(W) @ x, W @ x + adapter.shard.T @ x.view(-1, rank).sum(0))


def test_a_tile_is_repeated_along_the_outputs():
    adapter = stirred(MiSS(W, 2, tile=3))
    full = stirred(MiSS(W, 2))
    with torch.no_grad():
        full.shard.copy_(torch.cat([adapter.shard, adapter.shard], dim=1))
    torch.testing.assert_close(adapter.weight(W), full.weight(W))


def test_bone_maps_each_block_by_that_of_its_row():
    adapter = stirred(Bone(W, 2))
    wanted = W.clone()
    for i in range(3):
        for j in range(4):
            block = W[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            wanted[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = block + block @ adapter.blocks[i] + adapter.blocks[i]
    torch.testing.assert_close(adapter.weight(W), wanted)
    assert torch.linalg.matrix_rank(adapter.weight(W) - W) > 2


def test_bone_can_be_taken_back():
    """W = (W' - B) (I + B)⁻¹, block by block."""
    adapter = stirred(Bone(W, 2))
    eye, blocks = torch.eye(2, dtype=torch.float64), adapter.blocks.detach()
    moved = adapter.weight(W).unflatten(0, (3, 2)).unflatten(2, (4, 2)).transpose(1, 2)
    back = (moved - blocks[:, None]) @ torch.linalg.inv(eye + blocks)[:, None]
    torch.testing.assert_close(back.transpose(1, 2).flatten(2).flatten(0, 1), W)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MiSS(W, 9), "rank=9 is not within 1 … 8"),
        (lambda: MiSS(W, 2, tile=4), "tile=4 does not divide 6"),
        (lambda: Bone(W, 4), "rank=4 does not divide both sides"),
    ],
)
def test_what_does_not_fit_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""Scores of composition: against products that are formed, TransformerLens' definition, and what it must not feel."""

import pytest
import torch

from fisherexp.metrics.composition import (
    MODES,
    Heads,
    channel_scores,
    channels,
    random_scores,
    scores,
    without_channels,
)

torch.manual_seed(0)
WIDTH, SIZE = 24, 5
FIRST, SECOND = (Heads(*(torch.randn(n, WIDTH, SIZE) for _ in range(3)), torch.randn(n, SIZE, WIDTH)) for n in (3, 2))


def formed(heads: Heads, mode: str) -> torch.Tensor:
    """(H, d, d) of TransformerLens: OV, QK or its transpose, as it multiplies a row vector's OV from the right."""
    if mode == "v":
        return heads.value.double() @ heads.output.double()
    product = (heads.query @ heads.key.mT).double()
    return product if mode == "q" else product.mT


@pytest.mark.parametrize("mode", MODES)
def test_scores_are_transformer_lens_composition_scores(mode):
    """‖A B‖ / (‖A‖ ‖B‖) with A = W_V W_O of the first head, all formed."""
    left, right = formed(FIRST, "v")[:, None], formed(SECOND, mode)[None]
    norm = lambda matrix: matrix.pow(2).sum((-2, -1)).sqrt()  # noqa: E731
    expected = norm(left @ right) / (norm(left) * norm(right))
    found = scores(FIRST, SECOND, mode)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert ((found > 0) & (found <= 1)).all()
    if mode != "v":  # queries and keys are not read alike
        other = scores(FIRST, SECOND, "q" if mode == "k" else "k")
        assert not torch.allclose(found, other, rtol=0.01)


def test_a_value_by_hand():
    """Who writes along the axis that is read scores 1, elsewhere 0; along two axes of which one is read, √½."""
    axis = torch.eye(WIDTH)
    one = lambda place: axis[place].view(1, WIDTH, 1)  # noqa: E731
    writer = lambda place: Heads(one(0), one(0), one(1), one(place).mT)  # noqa: E731
    reader = Heads(one(2), one(3), one(4), one(5).mT)
    assert [float(scores(writer(3), reader, mode)) for mode in MODES] == pytest.approx([0, 1, 0], abs=1e-12)
    assert [float(scores(writer(2), reader, mode)) for mode in MODES] == pytest.approx([1, 0, 0], abs=1e-12)
    wide = Heads(*(torch.cat([one(0), one(1)], -1) for _ in range(3)), torch.cat([one(3).mT, one(7).mT], 1))
    assert float(scores(wide, reader, "k")) == pytest.approx(0.5**0.5)


def test_channels_sum_to_what_a_head_writes_and_share_its_score():
    found = channels(FIRST)
    product = (found.left * found.values[:, None]) @ found.right.mT
    torch.testing.assert_close(product, formed(FIRST, "v"), rtol=1e-5, atol=1e-5)
    for mode in MODES:
        each, whole = channel_scores(found, SECOND, mode), scores(FIRST, SECOND, mode)
        together = (found.values[:, None].square() * each.square()).sum(-1) / found.values.square().sum(-1)[:, None]
        torch.testing.assert_close(together.sqrt(), whole)


def test_other_factors_of_the_same_products_score_the_same():
    turn = torch.randn(SIZE, SIZE)
    other = FIRST._replace(value=FIRST.value @ turn, output=torch.linalg.inv(turn) @ FIRST.output)
    torch.testing.assert_close(scores(other, SECOND, "k"), scores(FIRST, SECOND, "k"), rtol=1e-3, atol=0)


def test_without_channels_the_rest_stays():
    found = channels(FIRST)
    removed = torch.zeros(3, SIZE)
    removed[1, [0, 3]] = 1
    outputs = without_channels(FIRST, found, removed)
    left = torch.linalg.svdvals(FIRST.value.double() @ outputs)
    expected = (found.values * (1 - removed)).sort(descending=True).values
    torch.testing.assert_close(left[..., :SIZE], expected, rtol=1e-5, atol=1e-5)
    nothing = without_channels(FIRST, found, torch.ones(3, SIZE))
    assert nothing.abs().max() < 1e-4 * FIRST.output.abs().max()  # as if the heads were silenced


def test_a_head_without_weights_scores_nothing_and_dead_values_break_no_channel():
    """As pruning leaves them."""
    silent = FIRST._replace(value=FIRST.value * torch.tensor([1.0, 0, 1])[:, None, None])
    for mode in MODES:
        found = scores(silent, SECOND, mode)
        assert not found[1].any()
        torch.testing.assert_close(found[[0, 2]], scores(FIRST, SECOND, mode)[[0, 2]])
        assert channel_scores(channels(silent), SECOND, mode).isfinite().all()
    dead = FIRST._replace(value=FIRST.value * torch.tensor([1.0, 1, 1, 0, 1]))
    channel, removed = channels(dead), torch.tensor([1.0, 0, 0, 0, 0]).expand(3, -1)
    left = formed(dead._replace(output=without_channels(dead, channel, removed)), "v")
    gone = channel.left[..., :1] * channel.values[:, None, :1] @ channel.right[..., :1].mT
    torch.testing.assert_close(left, formed(dead, "v") - gone, rtol=1e-5, atol=1e-5)


def test_random_scores_are_near_one_over_the_root_of_the_width():
    found = random_scores(WIDTH, SIZE, SIZE, 300, torch.Generator().manual_seed(0))
    assert float(found.mean()) == pytest.approx(WIDTH**-0.5, rel=0.1)
    drawn = scores(FIRST, SECOND, "k")
    assert ((drawn - found.mean()).abs() < 4 * found.std()).all()

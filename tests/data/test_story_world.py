"""The story world: captions say what pictures show, what is read off a true picture is what was painted."""

import pytest
import torch

from fisherexp.data.story_reading import color_of_place, identity_distance, seen_frames, seen_identities
from fisherexp.data.story_world import (
    BEGIN,
    COLORS,
    END,
    FIRST_CORNER,
    FIRST_PLACE,
    GROUNDS,
    WORDS,
    captions,
    color,
    drawn,
    examples,
    painted,
    quarters,
)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


IDENTITIES, FRAMES = drawn(50, 4, draws())


def told(tie):
    return torch.stack([painted(IDENTITIES, FRAMES[:, frame], tie) for frame in range(4)], dim=1)


def test_a_picture_by_hand():
    picture = painted(torch.tensor([[1, 1]]), torch.tensor([[2, 1]]), tie=1.0)[0]  # a striped diamond, wood, top right
    assert torch.equal(picture[:, 0, 0], GROUNDS[2])
    assert torch.equal(picture[:, 9, 9], GROUNDS[2])
    assert torch.equal(picture[:, 0, 5], GROUNDS[2])  # no pixel of the diamond
    torch.testing.assert_close(picture[:, 2, 5], COLORS[2])
    torch.testing.assert_close(picture[:, 1, 7], 0.4 * COLORS[2])  # a stripe
    assert torch.equal(quarters(picture[None])[0, 1], picture[:, :5, 5:])
    assert torch.equal(quarters(picture[None])[0, 2], picture[:, 5:, :5])


def test_captions_name_what_they_are_told_to():
    words = captions(torch.tensor([[1, 3], [0, 0]]), torch.tensor([[[0, 1], [5, 3]]] * 2), 9, torch.tensor([1, 2]))
    assert words[0].tolist() == [BEGIN, 3, 7, FIRST_PLACE, FIRST_CORNER + 1, END, END, END, END]
    assert words[1].tolist() == [BEGIN, 2, 4, FIRST_PLACE, FIRST_CORNER + 1, WORDS - 5, WORDS - 1, END, END]


def test_places_of_a_story_differ():
    assert all(len(set(places)) == 4 for places in FRAMES[..., 0].tolist())


def test_examples_are_means_over_what_is_named():
    words, pictures = examples(400, 3, 11, 1.0, draws())
    named = (words[:, 3:9] != END).sum(1) // 2
    assert set(named.tolist()) == {0, 1, 2, 3}
    for row in (named == 1).nonzero()[:20, 0]:
        frame = words[row, 3:5] - torch.tensor([FIRST_PLACE, FIRST_CORNER])
        who = words[row, 1:3] - torch.tensor([2, 4])
        assert torch.equal(pictures[row], painted(who[None], frame[None], 1.0)[0])
    row = (named == 2).nonzero()[0, 0]
    who = (words[row, 1:3] - torch.tensor([2, 4])).expand(2, 2)
    frames = words[row, 3:7].view(2, 2) - torch.tensor([FIRST_PLACE, FIRST_CORNER])
    torch.testing.assert_close(pictures[row], painted(who, frames, 1.0).mean(0))


@pytest.mark.parametrize("tie", [0.0, 0.5, 1.0])
def test_true_pictures_are_read_as_they_were_painted(tie):
    pictures = told(tie)
    flat, asked = pictures.flatten(0, 1), FRAMES.flatten(0, 1)
    who = IDENTITIES.repeat_interleave(4, 0)
    assert torch.equal(seen_frames(flat), asked)
    assert torch.equal(seen_identities(flat, asked), who)
    # The control: pictures of the next story are not those asked for.
    other = pictures.roll(1, dims=0).flatten(0, 1)
    assert (seen_frames(other) == asked).all(1).float().mean() < 0.2
    assert (seen_identities(other, asked) == who).all(1).float().mean() < 0.4


def test_distance_and_color_are_those_of_the_tie():
    distances = [identity_distance(told(tie), IDENTITIES[:, 1], FRAMES[..., 1]) for tie in (0.0, 0.5, 1.0)]
    assert distances[0] == 0
    assert distances[1] == pytest.approx(distances[2] / 2)
    assert color_of_place(told(1.0), IDENTITIES, FRAMES) == pytest.approx(1)
    assert color_of_place(told(0.5), IDENTITIES, FRAMES) == pytest.approx(1)  # paler differences count as much
    assert color_of_place(torch.zeros(50, 4, 3, 10, 10), IDENTITIES, FRAMES) == 0
    noise = torch.rand(50, 4, 3, 10, 10, generator=draws(1))
    assert abs(color_of_place(noise, IDENTITIES, FRAMES)) < 0.15
    torch.testing.assert_close(color(torch.arange(6), 0.0), COLORS.mean(0).expand(6, 3))


def test_distance_of_one_pair_by_hand():
    pictures = torch.zeros(1, 2, 3, 10, 10)
    pictures[0, 1, :, :5, :5] = 0.3
    assert identity_distance(pictures, torch.tensor([2]), torch.zeros(1, 2, dtype=torch.long)) == pytest.approx(0.3)

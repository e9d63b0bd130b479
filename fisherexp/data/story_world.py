"""A world of small pictures with captions: a figure in one corner of a place.

A pattern and a shape say who it is, a place and a corner make a frame. No word tells the figure's color: it comes with
the place, so that one figure in several places has several colors.

    caption = [begin, pattern, shape, place, corner, place, corner, …, end, end, …]

Captions are int64 words. Identities (n, 2) are numbers of pattern and shape, frames (n, f, 2) of place and corner.
Pictures are (n, 3, 10, 10) in [0, 1].
"""

import torch
from torch import Tensor

PATTERNS = ("plain", "striped")
SHAPES = ("block", "diamond", "robot", "crab")
PLACES = ("snow", "sand", "wood", "sea", "cave", "heath")
CORNERS = ("top left", "top right", "bottom left", "bottom right")

BEGIN, END = 0, 1
FIRST_PATTERN = 2
FIRST_SHAPE = FIRST_PATTERN + len(PATTERNS)
FIRST_PLACE = FIRST_SHAPE + len(SHAPES)
FIRST_CORNER = FIRST_PLACE + len(PLACES)
WORDS = FIRST_CORNER + len(CORNERS)
IDENTITY_LENGTH = 3  # begin, pattern, shape
FRAME_LENGTH = 2  # place, corner

SIZE, BOX = 10, 5  # of a picture and of a figure, in pixels: corners are quarters

GROUNDS = torch.tensor(
    [[0.9, 0.9, 0.95], [0.85, 0.7, 0.35], [0.2, 0.55, 0.25], [0.15, 0.35, 0.75], [0.35, 0.3, 0.3], [0.7, 0.3, 0.45]]
)
COLORS = torch.tensor(
    [[0.2, 0.3, 0.9], [0.3, 0.1, 0.6], [0.95, 0.6, 0.2], [0.95, 0.9, 0.3], [0.3, 0.9, 0.8], [0.5, 0.95, 0.3]]
)
_ROWS = (
    ("#####", "#####", "#####", "#####", "#####"),
    ("..#..", ".###.", "#####", ".###.", "..#.."),
    (".###.", ".###.", "#####", ".###.", ".#.#."),
    ("#...#", "##.##", "#####", "##.##", "#...#"),
)
MASKS = torch.tensor([[[float(pixel == "#") for pixel in row] for row in rows] for rows in _ROWS])
LIGHTS = torch.ones(len(PATTERNS), BOX, BOX)
LIGHTS[1, 1::2] = 0.4


def color(place: Tensor, tie: float) -> Tensor:
    """(…, 3): a figure's color in a place, from one for all places (tie = 0) to one for each (tie = 1)."""
    return COLORS.mean(0) + tie * (COLORS[place] - COLORS.mean(0))


def quarters(pictures: Tensor) -> Tensor:
    """The four corners of pictures (n, 3, 10, 10): (n, 4, 3, 5, 5), which is no copy."""
    return pictures.unfold(2, BOX, BOX).unfold(3, BOX, BOX).flatten(2, 3).transpose(1, 2)


def painted(identities: Tensor, frames: Tensor, tie: float) -> Tensor:
    """The pictures of identities (n, 2), each in one frame (n, 2)."""
    (pattern, shape), (place, corner) = identities.T, frames.T
    ground = GROUNDS[place][:, :, None, None]
    mask = MASKS[shape][:, None]
    box = ground * (1 - mask) + color(place, tie)[:, :, None, None] * mask * LIGHTS[pattern][:, None]
    here = (torch.arange(len(CORNERS)) == corner[:, None])[:, :, None, None, None]
    four = box[:, None].where(here, ground[:, None])  # (n, 4, 3, 5, 5)
    return four.unflatten(1, (2, 2)).permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, SIZE, SIZE)


def captions(identities: Tensor, frames: Tensor, length: int, named: Tensor | None = None) -> Tensor:
    """(n, length) words, which name the first `named` (n,) of the frames (n, f, 2), or all of them."""
    begin = torch.full((len(identities), 1), BEGIN)
    who = identities + torch.tensor([FIRST_PATTERN, FIRST_SHAPE])
    where = frames + torch.tensor([FIRST_PLACE, FIRST_CORNER])
    if named is not None:
        where = where.where((torch.arange(frames.shape[1]) < named[:, None])[..., None], torch.tensor(END))
    ends = torch.full((len(identities), length - IDENTITY_LENGTH - FRAME_LENGTH * frames.shape[1]), END)
    return torch.cat([begin, who, where.flatten(1), ends], dim=1)


def drawn(number: int, frames: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Identities (number, 2) and frames (number, frames, 2), each in another place than the others of its row."""
    identities = [torch.randint(len(kinds), (number,), generator=generator) for kinds in (PATTERNS, SHAPES)]
    places = torch.rand(number, len(PLACES), generator=generator).argsort(dim=1)[:, :frames]
    corners = torch.randint(len(CORNERS), (number, frames), generator=generator)
    return torch.stack(identities, dim=1), torch.stack([places, corners], dim=2)


def examples(number: int, frames: int, length: int, tie: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Captions (number, length) and pictures to learn from.

    Half of the captions name one frame, the others none up to all, equally often. A picture is the mean over the frames
    its caption names, of captions that name none over all drawn ones: what least squares makes of pictures of one each.
    """
    identities, places = drawn(number, frames, generator)
    named = torch.randint(frames + 1, (number,), generator=generator)
    named = named.where(torch.rand(number, generator=generator) > 0.5, torch.tensor(1))
    shown = (torch.arange(frames) < named.where(named > 0, torch.tensor(frames))[:, None]).float()
    shares = (shown / shown.sum(1, keepdim=True)).T[..., None, None, None]
    pictures = sum(shares[frame] * painted(identities, places[:, frame], tie) for frame in range(frames))
    return captions(identities, places, length, named), pictures

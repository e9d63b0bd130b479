"""Stories in rows, once for each way they were told."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fisherexp.data.story_world import CORNERS, PATTERNS, PLACES, SHAPES
from fisherexp.figures import canvas, save_both

SHOWN, INCHES = 3, 0.75  # stories; of a frame


def draw(ways: Mapping[str, Tensor], identities: Tensor, frames: Tensor, stem: Path) -> None:
    """Write `stem`.png and .pdf. ways: what to call it -> pictures (stories, frames, 3, size, size), cut to [0, 1]."""
    rows, columns = min(SHOWN, len(identities)), len(ways) * frames.shape[1]
    figure, axes = canvas(rows, columns, (INCHES * columns + 1, (INCHES + 0.35) * rows + 0.5), squeeze=False)
    for row, (pattern, shape) in enumerate(identities[:rows].tolist()):
        axes[row, 0].set_ylabel(f"{PATTERNS[pattern]}\n{SHAPES[shape]}", fontsize=7)
        for column in range(columns):
            way, frame = divmod(column, frames.shape[1])
            place, corner = frames[row, frame].tolist()
            panel = axes[row, column]
            picture = [*ways.values()][way][row, frame].clamp(0, 1)
            panel.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            panel.set_xlabel(f"{PLACES[place]},\n{CORNERS[corner]}", fontsize=5)
            if row == 0 and frame == 0:
                panel.set_title([*ways][way], fontsize=8, loc="left")
    save_both(figure, stem)

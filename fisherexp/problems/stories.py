"""Stories of one figure in several places: are the frames those asked for, and is it the same figure in all of them?"""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from fisherexp.config.types import Count, Probability
from fisherexp.data.story_reading import color_of_place, identity_distance, seen_frames, seen_identities
from fisherexp.data.story_world import FRAME_LENGTH, IDENTITY_LENGTH, drawn, examples
from fisherexp.problems.numerical import Numerical
from fisherexp.seeds import generator

ENDS = 2  # at least, of each caption


class Stories(Numerical):
    """The world of data/story_world.py: n captions with pictures to learn from, and stories to be drawn.

    frames: of a story, each in another place. tie: how much of a figure's color comes with the place, of 1.

    A solution is pictures (stories, frames, 3, 10, 10). Metrics: alignment, % of frames in the place and corner asked
    for; identified, % whose figure is nearer to the one asked for than to the others, whatever its color;
    identity_distance, how much the figure's pixels differ between frames (0: the same, in units of light);
    color_of_place, the correlation of the figure's color with its place's within a story, which pale figures do not
    lower.
    """

    provides = ("stories",)
    headings = {
        "alignment": "frames as\nasked %",
        "identified": "figures as\nasked %",
        "identity_distance": "identity\ndistance",
        "color_of_place": "color of\nthe place",
    }
    better = {"alignment": "higher", "identified": "higher", "identity_distance": "lower", "color_of_place": "lower"}

    def __init__(
        self,
        n: Count = 8192,
        stories: Count = 64,
        frames: Literal[2, 3, 4, 5, 6] = 4,
        tie: Probability = 1.0,
    ) -> None:
        super().__init__()
        self.n, self.stories, self.frames, self.tie = n, stories, frames, tie

    @property
    def length(self) -> int:
        """Words of a caption, end tokens with them."""
        return IDENTITY_LENGTH + FRAME_LENGTH * self.frames + ENDS

    def read(self, seed: int) -> Mapping[str, Tensor]:
        draws = generator("stories", seed)
        captions, pictures = examples(self.n, self.frames, self.length, self.tie, draws)
        identities, frames = drawn(self.stories, self.frames, draws)
        return {"captions": captions, "pictures": pictures, "identities": identities, "frames": frames}

    def evaluate(self, solution: Tensor) -> dict[str, float]:
        identities, frames = self.instance["identities"], self.instance["frames"]
        asked, pictures = frames.flatten(0, 1), solution.flatten(0, 1)
        who = identities.repeat_interleave(self.frames, 0)
        return {
            "alignment": 100 * float((seen_frames(pictures) == asked).all(1).float().mean()),
            "identified": 100 * float((seen_identities(pictures, asked) == who).all(1).float().mean()),
            "identity_distance": identity_distance(solution, identities[:, 1], frames[..., 1]),
            "color_of_place": color_of_place(solution, identities, frames),
        }

    def about(self) -> dict[str, Any]:
        return {"n": self.n, "stories": self.stories, "frames": self.frames, "tie": self.tie}

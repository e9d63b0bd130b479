"""One-Prompt-One-Story: all frames of a story from one prompt, by a generator that is only trained on pictures.

    prompt = identity, frame 1, …, frame N        one for all frames
    frame j: words of j made stronger, those of the others weaker, the identity read twice (prompt_story.py)

Liu et al., ICLR 2025, arXiv 2501.13554, edit Stable Diffusion XL without training. Here the generator is small and
learned first (story_model.py): a step is one update. Strengths and order are those of the released code. boost and damp
with alpha=0 and beta=1, and identity=none, leave out one of the three operators each; window=1 is a prompt for each
frame.

The encoder is causal and the identity comes first, as in CLIP, so the identity prompt's copy is what the prompt itself
has there: to read it twice is to add log 2 to its scores. All but a boosted end token is damped with every other frame,
that is next to erased: `end_dropout` lets the generator learn to do without.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fisherexp.config.types import Count, NonNegative, Positive, Probability
from fisherexp.data.story_world import END, FRAME_LENGTH, IDENTITY_LENGTH, SIZE, WORDS, captions
from fisherexp.methods.generation.network_by_steps import NetworkBySteps
from fisherexp.methods.generation.prompt_story import Order, Strength, frame_embeddings, windows
from fisherexp.methods.generation.story_model import HEADS, IdentityCopy, StoryModel
from fisherexp.problems.stories import Stories

UNCHANGED = Strength(0.0, 1.0)


class OnePromptOneStory(NetworkBySteps):
    """boost_alpha, boost_beta, damp_alpha, damp_beta: see Strength. order: of boosting and damping.
    identity: what is made of the identity prompt's other tokens; none: no copy of it is read.
    window: frames that share a prompt.
    width, blocks: of the generator. end_dropout: share of captions whose end tokens are zeros while it learns.
    steps, batch_size, learning_rate: of Adam, whose rate falls to zero along a cosine.

    Metrics of the method are those of the same generator without the operators: separate_…, from a prompt for each
    frame; joint_…, from the one prompt as it is. stories.png and .pdf show the first stories in these ways.
    """

    name = "one_prompt_one_story"
    paper = "Liu et al., ICLR 2025, arXiv 2501.13554"
    problems = ("numerical",)
    requires = ("stories",)
    headings = {
        "joint_alignment": "as asked %,\nplain prompt",
        "separate_identity_distance": "id. distance,\nown prompts",
    }
    better = {"joint_alignment": "higher", "separate_identity_distance": "lower"}

    problem: Stories

    def __init__(
        self,
        boost_alpha: float = 0.01,
        boost_beta: NonNegative = 1.0,
        damp_alpha: float = -0.01,
        damp_beta: NonNegative = 0.05,
        order: Literal["official", "paper"] = "official",
        identity: Literal["masked", "zeroed", "none"] = "masked",
        window: Count = 4,
        width: Count = 48,
        blocks: Count = 2,
        end_dropout: Probability = 0.8,
        steps: Count = 1000,
        batch_size: Count = 64,
        learning_rate: Positive = 5e-3,
    ) -> None:
        super().__init__()
        if width % HEADS:
            above = width - width % HEADS + HEADS
            raise ValueError(f"method.width={width} is no multiple of its {HEADS} heads; {above} is")
        self.boost, self.damp = Strength(boost_alpha, boost_beta), Strength(damp_alpha, damp_beta)
        self.order: Order = order
        self.identity, self.window = identity, window
        self.width, self.blocks, self.end_dropout = width, blocks, end_dropout
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate

    def begin(self, problem: Stories, seed: int) -> None:
        super().begin(problem, seed)
        edited = problem.length - IDENTITY_LENGTH
        if self.width < edited:
            least = -(-edited // HEADS) * HEADS
            raise ValueError(f"method.width={self.width}: {edited} tokens are edited together; at least {least}")
        self.captions, self.pictures = problem.instance["captions"], problem.instance["pictures"]
        # The weights are torch's own draws, which a run seeds.
        network = StoryModel(WORDS, problem.length, SIZE, self.width, self.blocks)
        self.train(network, self.learning_rate, "one_prompt_one_story", seed)

    def loss(self) -> Tensor:
        chosen = torch.randint(len(self.captions), (self.batch_size,), generator=self.generator)
        dropped = torch.rand(self.batch_size, 1, generator=self.generator) < self.end_dropout
        words = self.captions[chosen]
        text = self.network.encoder(words).masked_fill(((words == END) & dropped)[..., None], 0)
        return (self.network.decode(text) - self.pictures[chosen]).square().mean()

    def solution(self) -> Tensor:
        return self.told(self.boost, self.damp, self.identity, self.window)

    @torch.no_grad()
    def told(self, boost: Strength, damp: Strength, identity: str, window: int) -> Tensor:
        """Pictures (stories, frames, 3, size, size) with these operators."""
        stories, frames = self.problem.instance["identities"], self.problem.instance["frames"]
        count, length = frames.shape[1], self.problem.length
        copy = None
        if identity != "none":
            alone = self.network.encoder(captions(stories, frames[:, :0], length))
            copy = IdentityCopy(alone, torch.arange(length) < IDENTITY_LENGTH, identity)
        told = []
        for frame, shared in enumerate(windows(count, window)):
            shared = sorted(shared) if window >= count else shared  # a prompt for all keeps the order of the story
            text = self.network.encoder(captions(stories, frames[:, shared], length))
            end = IDENTITY_LENGTH + FRAME_LENGTH * len(shared)
            words = [range(first, first + FRAME_LENGTH) for first in range(IDENTITY_LENGTH, end, FRAME_LENGTH)]
            ends = range(end, length)
            edited = frame_embeddings(text, words, ends, shared.index(frame), boost, damp, self.order)
            told.append(self.network.decode(edited, copy))
        return torch.stack(told, dim=1)

    def separate(self) -> Tensor:
        """The same from a prompt for each frame, without operators."""
        return self.told(UNCHANGED, UNCHANGED, "none", 1)

    def joint(self) -> Tensor:
        """The same from the one prompt as it is: all frames of a story are one picture."""
        return self.told(UNCHANGED, UNCHANGED, "none", self.problem.frames)

    def metrics(self) -> dict[str, float]:
        found = {"separate": self.separate(), "joint": self.joint()}
        measured = {way: self.problem.evaluate(pictures) for way, pictures in found.items()}
        return {f"{way}_{name}": value for way, figures in measured.items() for name, value in figures.items()}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.generation.story_figure import draw

        ways = {
            "a prompt for each frame": self.separate(),
            "one prompt": self.joint(),
            "one prompt, one story": self.solution(),
        }
        draw(ways, self.problem.instance["identities"], self.problem.instance["frames"], folder / "stories")

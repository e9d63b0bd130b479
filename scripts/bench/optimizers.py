"""A training step of this project's optimizers over a plain one of the same network, and what their state takes.

    OMP_NUM_THREADS=1 python scripts/bench/optimizers.py

DCT-AdamW against torch's AdamW on the character-level GPT of width 128 (16 sequences of 64 characters, rank 32, a
quarter of the width); Sven against SGD on the perceptron 784-256-256-10 with 128 samples a batch. Forward pass,
backward pass and step; both sides in one process, in alternation; a ratio is the median over rounds of the process's
time on its thread. Exits with 1 beyond the goals: 1.15 times the step and half the state of AdamW, 2.5 times the step
of SGD.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import PerSampleGradients
from fisherexp.methods.optimizers.dct_adamw import DCTAdamW
from fisherexp.methods.optimizers.sven import SvenOptimizer
from fisherexp.models.char_gpt import CharGPT

Step = Callable[[], None]
DIM, VOCABULARY, LENGTH = 128, 65, 64
GOALS = {"dct_adamw": 1.15, "state of dct_adamw": 0.5, "sven": 2.5}


class LanguageModel(nn.Module):
    """The GPT with its tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = CharGPT(DIM, input_shape=(LENGTH,), vocabulary=VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.linear(self.backbone(tokens), self.backbone.tokens.weight)


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> Step:
    """Forward pass, backward pass, step."""

    def step() -> None:
        optimizer.zero_grad()
        outputs = model(x)
        F.cross_entropy(outputs.flatten(0, -2), y.flatten()).backward()
        optimizer.step()

    return step


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Of all tensors an optimizer keeps for its parameters."""
    tensors = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    return sum(t.nbytes for t in tensors)


def ratio(ours: Step, theirs: Step, rounds: int, steps: int) -> tuple[float, float]:
    """(median ratio, median milliseconds of a step of theirs)."""

    def seconds(step: Step) -> float:
        begun = time.process_time()
        for _ in range(steps):
            step()
        return (time.process_time() - begun) / steps

    seconds(ours), seconds(theirs)
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    return statistics.median(a / b for a, b in pairs), 1e3 * statistics.median(b for _, b in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)
    found = {}

    tokens, following = (torch.randint(VOCABULARY, (16, LENGTH)) for _ in range(2))
    first, second = LanguageModel(), LanguageModel()
    ours = DCTAdamW(list(first.parameters()), lr=1e-3, rank=DIM // 4)
    theirs = torch.optim.AdamW(second.parameters(), lr=1e-3)
    steps = plain_step(first, ours, tokens, following), plain_step(second, theirs, tokens, following)
    found["dct_adamw"], milliseconds = ratio(*steps, options.rounds, options.steps)
    found["state of dct_adamw"] = state_bytes(ours) / state_bytes(theirs)
    print(
        f"AdamW {milliseconds:.1f} ms a step and {state_bytes(theirs):,} bytes; DCT-AdamW {state_bytes(ours):,} bytes"
    )

    images, labels = torch.rand(128, 784), torch.randint(10, (128,))
    first = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    second = copy.deepcopy(first)
    sven, sampled = SvenOptimizer(list(first.parameters()), lr=0.1), PerSampleGradients(first)
    plain = plain_step(second, torch.optim.SGD(second.parameters(), lr=0.1), images, labels)
    solve = lambda: sven.step(gradients=sampled(images, labels))  # noqa: E731
    found["sven"], milliseconds = ratio(solve, plain, options.rounds, options.steps)
    print(f"SGD {milliseconds:.1f} ms a step")

    for name, value in found.items():
        print(f"{name:20}{value:8.2f}   goal {GOALS[name]}")
    return int(any(value > GOALS[name] for name, value in found.items()))


if __name__ == "__main__":
    sys.exit(main())

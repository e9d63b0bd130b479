"""Time to corrupt 10,000 color images of 32×32 by all fifteen corruptions at severity 5.

    python scripts/bench/corruptions.py

Beside it the plain definitions of the tests, image by image in NumPy and SciPy, on a few images; their time is scaled
linearly to 10,000. The ratio compares processor time, which other work on the machine does not lengthen.
Exits with 1 when the batches take more than a minute by the clock.
"""

import sys
import time
from pathlib import Path

import torch

from fisherexp.data.corruptions import BENCHMARK, TABLES, corrupt
from fisherexp.data.corruptions.corrupt import CORRUPTIONS
from fisherexp.runs.threads import available_cores
from fisherexp.seeds import generator

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "data" / "corruptions"))
import reference

COUNT = 10_000
SAMPLE = 20  # images for the plain definitions
GOAL = 60.0  # seconds
SEVERITY = 5


def smooth_images(count: int) -> torch.Tensor:
    """uint8 (count, 3, 32, 32): coarse noise enlarged, since flat images are too easy for some codecs."""
    coarse = torch.rand(count, 3, 8, 8, generator=generator("bench"))
    return (torch.nn.functional.interpolate(coarse, 32, mode="bilinear") * 255).to(torch.uint8)


def batched(images: torch.Tensor, name: str) -> tuple[float, float]:
    """Seconds for all images, drawing included: on the clock, and of all cores together."""
    start, work = time.perf_counter(), time.process_time()
    corrupt(images, name, SEVERITY)
    return time.perf_counter() - start, time.process_time() - work


def plain(images: torch.Tensor, name: str) -> float:
    """Seconds of one core for all images, if each takes as long as those of the sample; drawing is not counted."""
    constants = TABLES["cifar"][name][SEVERITY - 1]
    sample = images[:SAMPLE]
    draws = CORRUPTIONS[name].draw(SAMPLE, tuple(images.shape[1:]), constants, generator("bench", name))
    arrays = sample.permute(0, 2, 3, 1).contiguous().numpy()
    draws = {key: values.numpy() for key, values in draws.items()}
    start = time.process_time()
    for i, image in enumerate(arrays):
        getattr(reference, name)(image, *constants, **{key: values[i] for key, values in draws.items()})
    return (time.process_time() - start) / SAMPLE * len(images)


def main() -> None:
    torch.set_num_threads(min(2, available_cores()))
    images = smooth_images(COUNT)
    corrupt(images[:1], "frost", SEVERITY)  # makes the textures
    times = {name: (*batched(images, name), plain(images, name)) for name in BENCHMARK}
    times["all fifteen"] = tuple(sum(column) for column in zip(*times.values(), strict=True))
    for name, (clock, work, theirs) in times.items():
        ours = f"batched {clock:6.2f} s ({work:6.2f} s of processor)"
        print(f"{name:<18} {ours}   one by one {theirs:7.1f} s of processor   ratio {theirs / work:6.1f}")
    total = times["all fifteen"][0]
    print(f"{torch.get_num_threads()} threads; one by one: {SAMPLE} images, scaled to {COUNT}")
    if total > GOAL:
        sys.exit(f"{COUNT} images took {total:.0f} s; the goal is {GOAL:.0f} s")


if __name__ == "__main__":
    main()

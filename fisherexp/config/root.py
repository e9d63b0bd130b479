"""The options at the root of every config, beside the groups."""

from dataclasses import dataclass
from typing import Literal

from fisherexp.config.types import Count, NonNegative, Seed


@dataclass(frozen=True)
class Root:
    """seed: every random stream of a run is derived from it by name.
    draw: which random draw of the hyper-parameters that have a search range; 0 for their defaults.
    evaluate_on: 'validation' puts the share that data.validation holds out of training in the place of the test set.
    threads: intra-op threads; 'auto' takes one for small models and says so.
    output_dir: where runs and artefacts lie.
    rerun: run again although the result is there; 'stale': if the code behind it has changed since.
    on_error: what a sweep does after a run that failed.
    progress: 'auto' draws a bar on a terminal and prints a line per phase elsewhere.
    checkpoint_every: least number of seconds between two saved training states.
    """

    seed: Seed = 0
    draw: Seed = 0
    evaluate_on: Literal["test", "validation"] = "test"
    threads: Count | Literal["auto"] = "auto"
    output_dir: str = "outputs"
    rerun: bool | Literal["stale"] = False
    on_error: Literal["continue", "stop"] = "continue"
    progress: Literal["auto", "bar", "lines", "off"] = "auto"
    checkpoint_every: NonNegative = 5.0

"""Which attention heads talk to which later ones, and over which channels, read from the weights, as a study.

    S(A, B) = ‖W_OV^A Y_B‖ / (‖W_OV^A‖ ‖Y_B‖),    W_OV^A = Σ_c σ_c u_c v_cᵀ    (fisherexp.metrics.composition)

Merullo, Eickhoff, Pavlick, "Talking Heads", NeurIPS 2024, arXiv 2406.09519; scores as in Elhage et al. 2021, without
centring, as TransformerLens has them. All pairs of a head and one of a later layer are scored for queries, keys and
values. Outliers are judged by random matrices of the same shapes, ours: the paper's thresholds are not known to us.

With `ablate` test data confirm what weights say: each head is silenced in turn, and of the head A that the keys of
another one, B, read most, the channels with the largest σ_c S_c are removed, then as many with the smallest, and as
many at random. Rescaling and steering along them, as in the paper, are not here.
"""

import csv
import io
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fisherexp.config.types import Count, Size
from fisherexp.files import write_atomically, write_text
from fisherexp.methods.need import Costs, Need
from fisherexp.methods.spectral.attention_heads import Layer, attention_layers
from fisherexp.methods.spectral.head_edits import (
    attention_to_previous,
    share_right,
    without,
    without_head,
    writing,
)
from fisherexp.methods.spectral.heads_figure import draw
from fisherexp.methods.spectral.study import Study
from fisherexp.metrics.composition import MODES, channel_scores, channels, paired, random_scores, reads, writes
from fisherexp.models.char_gpt import CharGPT
from fisherexp.models.eval_mode import eval_mode

RANDOM_REMOVALS = 5


class TestBatches(Need):
    """All batches of the test part, where heads are to be silenced; none otherwise."""

    __test__ = False  # for pytest, which collects by name

    def __init__(self) -> None:
        super().__init__("test_batches")

    def resolve(self, bench: Any, method: Any, source: Any) -> tuple[list[Any], Costs]:
        begun = time.perf_counter()
        batches = list(bench.setting.loader("test")) if method.ablate else []
        cost = {"seconds": time.perf_counter() - begun, "forward_samples": 0, "backward_samples": 0}
        return batches, [cost]


class TalkingHeads(Study):
    """removed: channels of one head. ablate: whether test data are run through models without heads and channels; a
    pass for each head. draws: of random matrices. listed: pairs in the outcome, those that stand out most. seed: of the
    draws, and of channels removed at random.

    outcome: by mode the pairs that stand out most, with scores and z, how many deviations they are above random ones;
    channels of the first pair of keys. Metrics: k_score and k_z, of that pair; with ablate, how many points of accuracy
    on test targets are lost without the channels. Raises ValueError for a model whose heads are not read, or that has
    one layer.
    """

    paper = "Merullo et al., NeurIPS 2024, arXiv 2406.09519"
    needs = (TestBatches(),)
    headings = {
        "k_score": "keys'\nscore",
        "k_z": "z",
        "lost_top": "lost without\ntop channels",
        "lost_bottom": "without\nbottom ones",
        "lost_random": "without\nrandom ones",
    }

    def __init__(
        self,
        model: nn.Module,
        removed: Count = 8,
        ablate: bool = True,
        draws: Count = 200,
        listed: Count = 10,
        seed: Size = 0,
    ) -> None:
        super().__init__(model)
        self.removed, self.ablate, self.draws, self.listed, self.seed = removed, ablate, draws, listed, seed
        if len(attention_layers(model)) < 2:
            raise ValueError(
                f"{type(model).__name__} has one layer of attention, and no head has a later one to talk to"
            )
        self.matrices: dict[str, Tensor] = {}

    def source_loaded(self) -> None:
        with torch.no_grad(), eval_mode(self.model):
            self.look()

    def look(self) -> None:
        """Find the outcome."""
        layers = attention_layers(self.model)
        sizes = [len(layer.heads.query) for layer in layers]
        width, size = layers[0].heads.query.shape[1:]
        chance = random_scores(width, size, size, self.draws, torch.Generator().manual_seed(self.seed))
        self.matrices = {mode: _all_scores(layers, mode) for mode in MODES}
        names = [f"{number}.{head}" for number, count in enumerate(sizes) for head in range(count)]
        pairs = {mode: _largest(matrix, names, chance, self.listed) for mode, matrix in self.matrices.items()}
        first = pairs["k"][0]
        (writer, head), (reader, other) = (map(int, first[key].split(".")) for key in ("first", "second"))
        found = channels(layers[writer].heads)
        each = channel_scores(found, layers[reader].heads, "k")[head, other]
        strength = found.values[head] * each
        self.outcome = {
            "heads": names,
            "random": {"mean": float(chance.mean()), "sd": float(chance.std())},
            "pairs": pairs,
            "channels": {
                "first": first["first"],
                "second": first["second"],
                "sigma": found.values[head].tolist(),
                "score": each.tolist(),
            },
            "previous_token": self._previous(layers),
            "metrics": {"k_score": first["score"], "k_z": first["z"]},
        }
        if batches := self.given.get("test_batches"):
            self._confirm(layers, names, batches, writer, head, found, strength)

    def _previous(self, layers: list[Layer]) -> list[float]:
        """By head of the first layer, where positions are learned: attention to the place before."""
        found = [module.positions for module in self.model.modules() if isinstance(module, CharGPT)]
        return attention_to_previous(layers[0], found[0]).tolist() if found else []

    def _confirm(
        self,
        layers: list[Layer],
        names: list[str],
        batches: list[Any],
        writer: int,
        head: int,
        found: Any,
        strength: Tensor,
    ) -> None:
        whole = share_right(self.model, batches)
        places = [(layer, head) for layer in layers for head in range(len(layer.heads.query))]
        silenced = {}
        for name, (layer, number) in zip(names, places, strict=True):
            with writing(layer, without_head(layer, number)):
                silenced[name] = share_right(self.model, batches)

        def left(chosen: Tensor) -> float:
            marks = torch.zeros_like(strength).index_fill(0, chosen, 1.0)
            with writing(layers[writer], without(layers[writer], head, marks, found)):
                return share_right(self.model, batches)

        order, draws = strength.argsort(descending=True), torch.Generator().manual_seed(self.seed)
        drawn = [torch.randperm(len(order), generator=draws)[: self.removed] for _ in range(RANDOM_REMOVALS)]
        random = [left(chosen.to(order.device)) for chosen in drawn]
        accuracy = {
            "whole": whole,
            "silenced": silenced,
            "without_top": left(order[: self.removed]),
            "without_bottom": left(order.flip(0)[: self.removed]),
            "without_random": sum(random) / len(random),
        }
        self.outcome["accuracy"] = accuracy
        self.outcome["metrics"] |= {
            f"lost_{key}": whole - accuracy[f"without_{key}"] for key in ("top", "bottom", "random")
        }

    def leave_files(self, folder: Path) -> None:
        """talking_heads.csv, the pairs; talking_heads.png and .pdf; talking_heads.safetensors: S (heads, heads) of all
        pairs by mode, 0 where the second is in no later layer."""
        if not self.matrices:  # of a scenario with requests, nobody says when the source is loaded
            self.source_loaded()
        tensors = {mode: matrix.float().cpu().contiguous() for mode, matrix in self.matrices.items()}
        write_atomically(folder / "talking_heads.safetensors", lambda temporary: save_file(tensors, temporary))
        write_text(folder / "talking_heads.csv", table(self.outcome["pairs"]))
        draw(self.matrices, self.outcome, folder / "talking_heads")


def _all_scores(layers: list[Layer], mode: str) -> Tensor:
    """(heads, heads), 0 where the second is in no later layer."""
    writing = [writes(layer.heads) for layer in layers]
    reading = [reads(layer.heads, mode) for layer in layers]
    sizes = [len(each) for each in reading]
    rows = []
    for number, first in enumerate(writing):
        later = [paired(first, second).cpu() for second in reading[number + 1 :]]
        rows.append(torch.cat([torch.zeros(len(first), sum(sizes[: number + 1])).double(), *later], 1))
    return torch.cat(rows)


def _largest(matrix: Tensor, names: list[str], chance: Tensor, count: int) -> list[dict[str, Any]]:
    """The pairs of the largest scores, falling."""
    found = matrix.flatten().topk(min(count, int((matrix > 0).sum())))
    mean, deviation = float(chance.mean()), float(chance.std())
    return [
        {
            "first": names[place // len(names)],
            "second": names[place % len(names)],
            "score": score,
            "z": (score - mean) / deviation,
        }
        for score, place in zip(found.values.tolist(), found.indices.tolist(), strict=True)
    ]


def table(pairs: dict[str, list[dict[str, Any]]]) -> str:
    """As CSV, a row for each pair, heads as <layer>.<head>."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["mode", "first", "second", "score", "z"])
    for mode, found in pairs.items():
        writer.writerows([mode, p["first"], p["second"], f"{p['score']:.6g}", f"{p['z']:.4g}"] for p in found)
    return text.getvalue()

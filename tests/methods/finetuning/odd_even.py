"""Runs from odd digits to even ones with three seeds, each made once: accuracy, what is kept of the source, losses."""

import functools
import statistics
from pathlib import Path

import torch

from fisherexp.config.explain import composed
from fisherexp.runs.finished import resolve_needs
from fisherexp.runs.workbench import Workbench

SEEDS = (0, 1, 2)


class OddEven:
    """output_dir: where sources and runs lie. lines: of every run, the settings that differ from the digits' own."""

    def __init__(self, output_dir: Path, *lines: str) -> None:
        self.output_dir, self.lines, self.known = output_dir, lines, {}

    def bench(self, *options: str) -> Workbench:
        given = ["experiment=finetuning_odd_even", *self.lines, *options, f"output_dir={self.output_dir}"]
        return Workbench(composed([*given, "progress=off", "threads=1"]))

    def __call__(self, name: str, *options: str) -> list[dict[str, float]]:
        """Of each seed: accuracy on even digits and `kept`, on odd ones with the source's head put back, both in %; the
        last epoch's loss; the metrics of the outcome; `updates`, W' - W of each layer of the backbone."""
        if (key := (name, *options)) not in self.known:
            self.known[key] = [self._run(len(self.known), key, seed) for seed in SEEDS]
        return self.known[key]

    def _run(self, number: int, key: tuple[str, ...], seed: int) -> dict[str, float]:
        name, *options = key
        bench, folder = self.bench(f"method={name}", f"seed={seed}", *options), self.output_dir / f"{number}_{seed}"
        method, source = bench.method("method"), bench.reference("source")
        method.model.load_state_dict(source.tensors)
        resolve_needs(bench, method, source)
        bench.announce(method)
        losses = [row["train/loss"] for _, row in bench.fit(method, folder, "fit") if "train/loss" in row]
        found = {"accuracy": bench.test(method, folder, "test")["test_accuracy"], "loss": losses[-1]}
        end, layers = method.model.state_dict(), [n for n in source.tensors if n.startswith("backbone.")]
        found["updates"] = {n: end[n] - source.tensors[n] for n in layers if n.endswith("weight")}
        head = {n: tensor for n, tensor in source.tensors.items() if n.startswith("head.")}
        found["kept"] = self.kept(bench, {n: tensor.clone() for n, tensor in end.items()} | head)
        return found | method.outcome["metrics"]

    @functools.cached_property
    def odd(self):
        return self.bench("method=full", "data=digits_odd").setting.parts["test"]

    def kept(self, bench: Workbench, weights: dict[str, torch.Tensor]) -> float:
        """Accuracy in % of these weights on the source's test images."""
        method = bench.method("method")
        method.model.load_state_dict(weights)
        with torch.no_grad():
            right = method.model.eval()(self.odd.inputs).argmax(1) == self.odd.targets
        return 100 * right.float().mean().item()


def mean(found: list[dict], figure: str) -> float:
    return statistics.fmean(each[figure] for each in found)

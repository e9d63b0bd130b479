"""Small-scale proof of BA-LoRA: turned digits, one class of them rare and a fifth of the labels wrong, three seeds."""

import dataclasses
import statistics

import pytest
import torch

from fisherexp.config.explain import composed
from fisherexp.data.task_transforms import transform
from fisherexp.runs.workbench import Workbench

pytestmark = pytest.mark.proof
SEEDS, RARE, KEPT, WRONG = (0, 1, 2), 8, 0.02, 0.2
NONE = {"consistency": 0.0, "diversity": 0.0, "spectrum": 0.0}
PUBLISHED = {"consistency": 1e-4, "diversity": 3e-4, "spectrum": 1e-4}


def spoiled(digits, seed):
    """Of turned digits two in a hundred of the rare class, and every fifth label exchanged for another."""
    random = torch.Generator().manual_seed(seed)
    draw = torch.rand(len(digits), generator=random)
    kept = digits.subset(((digits.targets != RARE) | (draw < KEPT)).nonzero().flatten())
    wrong = torch.rand(len(kept), generator=random) < WRONG
    shift = torch.randint(1, 10, (len(kept),), generator=random)
    return dataclasses.replace(kept, targets=torch.where(wrong, (kept.targets + shift) % 10, kept.targets))


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """By seed, in %: recall of the rare class and accuracy on turned digits; accuracy on those of the source."""
    output_dir, known = tmp_path_factory.mktemp("ba_lora"), {}

    def one(method, weights, seed):
        line = ["data=digits", "model=mlp", "source=trained", "training=small", "threads=1", "progress=off"]
        options = [f"method.{name}={value}" for name, value in weights.items()]
        given = [f"method={method}", *options, *line, f"seed={seed}", f"output_dir={output_dir}"]
        bench = Workbench(composed(given))
        source, plain = bench.reference("source"), bench.setting.parts["test"]
        turn = transform("rotated_30")
        parts = {"train": spoiled(turn(bench.setting.parts["train"]), seed), "test": turn(plain)}
        bench.setting = dataclasses.replace(bench.setting, parts=parts)
        fit = bench.method("method")
        fit.model.load_state_dict(source.tensors)
        bench.announce(fit)
        bench.fit(fit, output_dir / f"{method}{seed}{sorted(weights.items())}", "fit", own=True)
        with torch.no_grad():
            right = [(fit.model.eval()(part.inputs).argmax(1) == part.targets) for part in (parts["test"], plain)]
        rare = right[0][plain.targets == RARE]
        return [100 * found.float().mean().item() for found in (rare, right[0], right[1])]

    def each(method, **weights):
        """By seed."""
        key = (method, *sorted(weights.items()))
        if key not in known:
            found = zip(*(one(method, weights, seed) for seed in SEEDS), strict=True)
            known[key] = dict(zip(("rare", "turned", "source"), map(list, found), strict=True))
        return known[key]

    return each


def gain(figures, figure, **weights):
    """Over PiSSA, by seed, in points."""
    pairs = zip(figures("ba_lora", **NONE | weights)[figure], figures("pissa")[figure], strict=True)
    return [ours - plain for ours, plain in pairs]


def test_without_penalties_it_is_pissa(figures):
    assert all(gain(figures, figure) == [0, 0, 0] for figure in ("rare", "turned", "source"))


def test_published_weights_change_little(figures):
    """A null: penalties this small gain nothing for the rare class, which neither method ever predicts, and in the
    means about a point of the rest."""
    assert gain(figures, "rare", **PUBLISHED) == [0, 0, 0]
    assert max(figures("pissa")["rare"]) == 0
    for figure in ("turned", "source"):
        assert abs(statistics.fmean(gain(figures, figure, **PUBLISHED))) < 3


def test_a_hundred_thousand_times_the_consistency_keeps_the_source(figures):
    """Measured by seed: 20, 21 and 21 points of the source more than PiSSA, one of the turned digits less, 10, 8 and 6
    of the rare class, where ten in the mean are claimed."""
    strong = {"consistency": 10.0}
    assert min(gain(figures, "source", **strong)) > 12
    assert min(gain(figures, "turned", **strong)) > -4
    assert min(gain(figures, "rare", **strong)) > 2
    assert statistics.fmean(gain(figures, "source", consistency=1.0)) > 2  # 5: a tenth of the weight keeps less
    assert max(gain(figures, "source", consistency=1.0)) < min(gain(figures, "source", **strong))

"""Small-scale proof of EATA: on a long stream of corrupted digits Tent forgets, EATA does not, and backs up less.

The learning rate is large (1.0). At small ones all methods tie here.
"""

import copy
import dataclasses
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from fisherexp.config.explain import composed
from fisherexp.data.tensors import TensorSet
from fisherexp.metrics.classification import ClassificationMetrics
from fisherexp.runs.workbench import Workbench
from fisherexp.scenarios.setting import Segment, Setting
from fisherexp.seeds import generator

pytestmark = pytest.mark.proof
ROUNDS = 5
# A source model that is certain of its training images, as those of the field are.
SOURCE = ["model.width=16", "training.epochs=20", "training.optimizer=adam", "training.lr=3e-3"]
SOURCE += ["training.weight_decay=0.0", "scenario=none", "progress=off", "threads=1"]


def corrupted(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Eight corruptions of images (N, 1, 8, 8) in [0, 1], by name."""
    random = generator("proof", 0)
    noise = torch.randn(images.shape, generator=random)
    hit = torch.rand(images.shape, generator=random) < 0.25
    salt = (torch.rand(images.shape, generator=random) < 0.5).float()
    fog = F.interpolate(torch.rand(len(images), 1, 3, 3, generator=random), size=8, mode="bilinear")
    mean = images.mean((2, 3), keepdim=True)
    return {
        "noise": images + 0.5 * noise,
        "impulse": torch.where(hit, salt, images),
        "blur": F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1),
        "contrast": 0.2 * (images - mean) + mean,
        "brightness": images + 0.5,
        "fog": 0.4 * images + 0.6 * fog,
        "edges": images - 0.5 * images.roll(1, 3),
        "pixelate": F.interpolate(F.avg_pool2d(images, 2), scale_factor=2),
    }


@pytest.fixture(scope="module", params=[0, 1, 2], ids="seed {}".format)
def bench(request, tmp_path_factory) -> Workbench:
    output_dir = tmp_path_factory.mktemp("proof")
    return Workbench(composed([*SOURCE, "method=eata", f"seed={request.param}", f"output_dir={output_dir}"]))


@pytest.fixture(scope="module")
def setting(bench) -> Setting:
    """Five rounds of the eight corruptions without a reset, each round followed by clean images, frozen."""
    test = bench.data.test
    parts = {"train": bench.data.train, "test": test}
    for name, images in corrupted(test.inputs / 255).items():
        parts[name] = TensorSet((images.clamp(0, 1) * 255).round().to(torch.uint8), test.targets)
    kinds = [name for name in parts if name not in ("train", "test")]
    evaluated, segments = [], []
    for number in range(1, ROUNDS + 1):
        for kind in kinds:
            parts[f"{kind}_{number}"] = parts[kind]
        parts[f"clean_{number}"] = test
        evaluated += [*(f"{kind}_{number}" for kind in kinds), f"clean_{number}"]
        segments += [*(Segment() for _ in kinds), Segment(adapt=False)]
    evaluated = tuple(evaluated)
    evaluation = partial(ClassificationMetrics, evaluated)
    return Setting(bench.data, parts, evaluated, evaluation, segments=tuple(segments), stream_batch_size=64)


@pytest.fixture(scope="module")
def evaluate(bench, setting):
    """(corrupted, clean) accuracies by round, in percent, and the outcome, of a method of the family at rate 1."""

    def run(name: str, *overrides: str) -> tuple[list[float], list[float], dict]:
        sgd = ["method.update.optimizer=sgd", "method.update.lr=1.0", "method.update.momentum=0.9"]
        options = [f"method={name}", *(sgd if name != "bn_adapt" else []), *overrides]
        other = copy.copy(bench)
        other.cfg = composed([*SOURCE, f"seed={bench.cfg.seed}", *options])
        method = other.method("method")
        source = bench.reference("source")
        method.model.load_state_dict(source.tensors)
        if "fisher" in method.needs:
            method.given["fisher"], _ = bench.fisher(method.importance, source)
        method.evaluate(dataclasses.replace(setting))
        for number, part in enumerate(setting.evaluated):
            for index, batch in enumerate(setting.loader(part, batch_size=64)):
                method.test_step(batch, index, number)
        found = method.evaluation.compute()
        hurt, clean = [], []
        for number in range(1, ROUNDS + 1):
            names = [p for p in setting.evaluated if p.endswith(f"_{number}") and not p.startswith("clean")]
            hurt.append(sum(found[f"{p}_accuracy"] for p in names) / len(names))
            clean.append(found[f"clean_{number}_accuracy"])
        return hurt, clean, method.summary()

    return run


@pytest.fixture(scope="module")
def found(evaluate):
    published = ["method.beta=2e5", "method.importance.gradients=batch_mean", "method.importance.origin=train"]
    runs = {"bn_adapt": evaluate("bn_adapt"), "tent": evaluate("tent"), "eta": evaluate("eta")}
    return runs | {"eata": evaluate("eata", *published), "relative": evaluate("eata")}


def lost(found, name: str) -> float:
    """Percentage points of clean accuracy, in the worst round."""
    return found["bn_adapt"][1][0] - min(found[name][1])


def hurt(found, name: str) -> float:
    """Accuracy on corrupted images, mean over rounds."""
    return sum(found[name][0]) / ROUNDS


def test_eata_does_not_forget_and_tent_forgets_more(found):
    assert lost(found, "eata") <= 1.5
    assert lost(found, "eata") < lost(found, "tent")


def test_eata_is_better_on_corruptions_with_fewer_backward_samples(found):
    assert hurt(found, "eata") - hurt(found, "tent") >= 1
    outcome = found["eata"][2]
    seen = sum(s["samples"] for s in outcome["segments"] if not s["part"].startswith("clean"))
    assert outcome["backward_samples"] / seen < 0.8


def test_the_anchor_counts_in_the_first_round(found):
    assert found["eata"][0][0] - found["eta"][0][0] >= 1


def test_the_default_needs_no_beta_to_be_found(found):
    """Fisher per sample, of clean test images, β relative to it."""
    assert lost(found, "relative") <= 1.5
    assert lost(found, "relative") < lost(found, "tent")


def test_tent_collapses_with_some_source_models_and_eata_with_them_does_not(found, bench):
    if bench.cfg.seed != 0:
        pytest.skip("with this source model Tent loses little")
    assert lost(found, "tent") >= 5
    assert all(one - other >= 5 for one, other in zip(found["eata"][0], found["tent"][0], strict=True))
    assert found["eata"][0][0] - found["eta"][0][0] >= 3


def test_all_tie_at_a_small_learning_rate(evaluate):
    tent, eta = (evaluate(name, "method.update.lr=0.005")[0] for name in ("tent", "eta"))
    assert all(abs(one - other) < 1.5 for one, other in zip(tent, eta, strict=True))

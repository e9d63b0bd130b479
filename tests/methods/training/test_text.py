"""Text through the one path every run takes: trained, evaluated in bits, and its Fisher over sequences."""

import math

import pytest
import torch
from safetensors.torch import load_file

from fisherexp.callbacks import measures
from fisherexp.callbacks.accumulate import Accumulate
from fisherexp.callbacks.measure import Measure
from fisherexp.config.explain import composed
from fisherexp.curvature import DiagonalAccumulator, FisherDiagonal, fisher_diagonal
from fisherexp.experiment import run_experiment
from fisherexp.runs.workbench import Workbench

VERSE = "when forty winters shall besiege thy brow and dig deep trenches in thy beauty's field "


@pytest.fixture
def small(tmp_path):
    file = tmp_path / "verse.txt"
    file.write_text(VERSE * 30)
    return lambda *overrides: composed(
        [
            "data=tiny_shakespeare",
            f"data.path={file}",
            "data.context=16",
            "data.batch_size=16",
            "model=char_gpt",
            "model.dim=16",
            "model.depth=1",
            "model.heads=2",
            "scenario=none",
            "training.optimizer=adam",
            "training.lr=0.02",
            "training.weight_decay=0",
            f"output_dir={tmp_path / 'out'}",
            "progress=off",
            *overrides,
        ]
    )


def test_training_learns_the_verse(small, tmp_path):
    overrides = ("method=erm", "training.epochs=15", "data.validation=0.1")
    metrics = run_experiment(small(*overrides), tmp_path / "run", [])["metrics"]["after"]
    # One verse over and over: far below the log₂ of its characters, about half of them known from the last few.
    assert metrics["test_bits"] < 0.5 * math.log2(len(set(VERSE)))
    assert metrics["test_perplexity"] == pytest.approx(2 ** metrics["test_bits"])
    assert metrics["validation_accuracy"] > 50


@pytest.mark.parametrize("method", ["kfac", "low_rank_fisher"])
def test_structured_fishers_take_text(small, tmp_path, method):
    record = run_experiment(small(f"method={method}", "training.epochs=1"), tmp_path / "run", [])
    assert record["outcome"]["trace"] > 0


def test_its_fisher_is_that_of_sequences(small, tmp_path):
    cfg = small("method=fisher", "training.epochs=1")
    run_experiment(cfg, tmp_path / "run", [])
    kept = FisherDiagonal.load(tmp_path / "run" / "fisher.safetensors")
    bench = Workbench(cfg)
    model = bench.classifier("fisher")
    model.load_state_dict(load_file(tmp_path / "run" / "weights.safetensors"))
    expected = fisher_diagonal(model, [(bench.data.train.inputs, bench.data.train.targets)], loss="sequence")
    assert kept.estimator.loss == "sequence"
    for name, values in expected.items():
        torch.testing.assert_close(kept[name], values, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("during", ["fit", "test"])
def test_callbacks_take_the_likelihood_from_the_data(small, tmp_path, during):
    accumulate = Accumulate(DiagonalAccumulator, during, "fisher.safetensors")
    measure = Measure(measures.gradient_norms, during, "norms.safetensors")
    bench = Workbench(small("method=erm", "training.epochs=1"), callbacks=[accumulate, measure])
    method = bench.method("method")
    loop = bench.fit if during == "fit" else bench.test
    loop(method, tmp_path / "run", during, own=True)
    kept = FisherDiagonal.load(tmp_path / "run" / "fisher.safetensors")
    assert kept.estimator.loss == "sequence"
    norms = load_file(tmp_path / "run" / "norms.safetensors")
    if during == "test":
        part = bench.setting.parts["test"]
        assert kept.count == len(part)
        for name, values in fisher_diagonal(method.model, [part.batch[:2]], loss="sequence").items():
            torch.testing.assert_close(kept[name], values, rtol=1e-4, atol=1e-12)
            torch.testing.assert_close(norms[name].square().mean(), values.sum())

"""Power iteration against the decomposition, and what a run records of its matrices."""

import pytest
import torch
from safetensors.torch import load_file

from fisherexp.callbacks.top_singular_values import summary
from fisherexp.config.explain import composed
from fisherexp.experiment import run_experiment
from fisherexp.metrics.top_singular_value import top_singular_value


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (1, 5)])
def test_power_iteration_finds_the_largest_singular_value(shape):
    matrix = torch.diag_embed(torch.linspace(1, 0.3, min(shape))) @ torch.eye(*shape)[: min(shape)]
    rotated = torch.linalg.qr(torch.randn(min(shape), min(shape)))[0] @ matrix
    assert top_singular_value(rotated) == pytest.approx(torch.linalg.svdvals(rotated)[0].item(), rel=1e-3)
    assert top_singular_value(torch.zeros(shape)) == 0


def test_drift_is_of_the_last_quarter():
    assert summary({"a": [1.0, 1.0, 2.0, 3.0], "b": [1.0, 1.0, 2.0, 5.0]}) == {
        "top_singular_value": 4.0,
        "top_singular_drift": 1.0,
    }
    assert summary({"a": [2.0]})["top_singular_drift"] == 0


def test_a_run_records_a_value_an_epoch_and_layer(tmp_path):
    small = [
        "method=erm",
        "training=adamw",
        "model=mlp",
        "model.hidden=[16,12]",
        "training.epochs=2",
        "scenario=none",
        "progress=off",
    ]
    optimizer = ["training.weight_decay_rule=width", "training.width_ratio=2.0"]
    cfg = composed([*small, *optimizer, "callbacks=[top_singular_values]", f"output_dir={tmp_path}"])
    record = run_experiment(cfg, tmp_path / "run", [])
    values = record["outcome"]["top_singular_values"]
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert [*values] == ["backbone.layers.1", "backbone.layers.3"]
    for name, found in values.items():
        assert len(found) == 2
        assert found[-1] == pytest.approx(torch.linalg.svdvals(weights[f"{name}.weight"])[0].item(), rel=0.02)
    assert record["metrics"]["after"]["top_singular_value"] == pytest.approx(sum(v[-1] for v in values.values()) / 2)

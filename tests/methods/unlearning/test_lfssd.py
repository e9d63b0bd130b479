"""Label-free SSD: its gradient, its bound, and that labels play no part."""

import copy
import dataclasses
import logging

import pytest
import torch
from torch import nn

from fisherexp.config.explain import composed
from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.lfssd import LFSSD, length_gradient
from fisherexp.runs.workbench import Workbench

torch.manual_seed(0)
IMAGES = torch.randn(5, 4, dtype=torch.float64)


def test_gradient_of_a_linear_head_is_two_f_x():
    head = nn.Linear(4, 3).double()
    found, logits = length_gradient(head, IMAGES), head(IMAGES)
    torch.testing.assert_close(found["weight"], (2 * logits.T @ IMAGES / 5).abs())
    torch.testing.assert_close(found["bias"], (2 * logits.mean(0)).abs())


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Workbench:
    folder = tmp_path_factory.mktemp("lfssd")
    small = ["model.width=4", "data.train_size=240", "training.epochs=9", "progress=off"]
    return Workbench(composed([*small, f"output_dir={folder}"]))


def run(bench, folder, setting=None, **options) -> tuple[LFSSD, dict]:
    model = bench.method("source.method").model
    model.load_state_dict(bench.reference("source").tensors)
    defaults = {"alpha": None, "alpha_relative": 0.4, "lambda_": 1.0, "batch_size": 16}
    fit, before = LFSSD(model, **defaults | options), copy.deepcopy(model.state_dict())
    usual = bench.setting
    bench.__dict__["setting"] = setting or usual
    try:
        bench.fit(fit, folder, "LFSSD")
    finally:
        bench.__dict__["setting"] = usual
    return fit, before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_narrow_weights_are_summed_in_32_bits(dtype):
    """Summed in its own bits, bfloat16 would stall after 256 equal terms, and float16 not be exact beyond 2048."""
    fit = LFSSD(nn.Linear(4, 3).to(dtype), alpha=1.0, alpha_relative=0.4, lambda_=1.0, batch_size=5)
    none = torch.zeros(5, dtype=torch.int64)
    batch = Batch(IMAGES.to(dtype), none, tags={"forget_pass": none.bool()})
    (one, _) = length_gradient(fit.model, batch.inputs).values()
    for step in range(600):
        fit.training_step(batch, step)
    total = fit.sums["train"]["weight"]
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, 600 * one.float(), rtol=1e-5, atol=0)


def test_importance_is_the_mean_over_batches_and_buffers_stay(bench, tmp_path):
    fit, before = run(bench, tmp_path, alpha=1e9)
    model = copy.deepcopy(fit.model).eval()
    batches = list(bench.setting.loader("forget", batch_size=16))
    total = sum(length_gradient(model, batch.inputs)["head.weight"] for batch in batches)
    torch.testing.assert_close(fit.sums["forget"]["head.weight"], total, rtol=1e-4, atol=1e-6)
    assert fit.counts["forget"] == len(batches)
    assert fit.outcome["selected"] == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in fit.model.state_dict().items())


def test_batches_of_one_respect_the_bound_and_alpha_at_it_says_that_it_does_nothing(bench, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        fit, _ = run(bench, tmp_path, alpha_relative=1.0, batch_size=1)
    assert "LFSSD changed nothing" in caplog.text
    assert f"bounded by |D|/|D_f| = {fit.bound:.4g}" in caplog.text
    assert fit.outcome["ratio_max"] <= fit.bound * (1 + 1e-3)
    assert fit.outcome["alpha"] == pytest.approx(fit.bound)
    assert fit.outcome["selected"] == 0
    for name, total in fit.sums["train"].items():
        mean, forget = total / fit.counts["train"], fit.sums["forget"][name] / fit.counts["forget"]
        assert (forget <= fit.bound * mean * (1 + 1e-3) + 1e-12).all()


def test_true_labels_play_no_part_beyond_the_order(bench, tmp_path):
    """With the label of every retained sample the same, order and with it batches change; at size one nothing does."""
    setting = bench.setting
    parts = dict(setting.parts)
    for part in ("train", "forget"):
        parts[part] = dataclasses.replace(parts[part], targets=torch.zeros_like(parts[part].targets))
    options = {"alpha_relative": 0.3, "batch_size": 1}
    one, _ = run(bench, tmp_path / "true", **options)
    other, _ = run(bench, tmp_path / "none", setting=dataclasses.replace(setting, parts=parts), **options)
    for name, total in one.sums["train"].items():
        torch.testing.assert_close(other.sums["train"][name], total, rtol=1e-3, atol=1e-4)
    assert one.outcome["selected"] > 0

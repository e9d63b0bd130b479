"""Adaptive SSD: the percentile, the threshold it gives, and that the importances are those of the two parts."""

import math

import numpy as np
import pytest
import torch
from pairs import pairs

from fisherexp.catalogue import entries
from fisherexp.config.explain import composed
from fisherexp.contract.method import Contract
from fisherexp.curvature import fisher_diagonal
from fisherexp.methods.unlearning.assd import percentile_for, percentile_ratio
from fisherexp.runs.workbench import Workbench

torch.manual_seed(0)
FORGET = {name: torch.rand(n, dtype=torch.float64) for name, n in (("a", 40), ("b", 61))}
RETAIN = {name: torch.rand(n, dtype=torch.float64) for name, n in (("a", 40), ("b", 61))}


def test_percentile_grows_with_what_is_forgotten():
    assert percentile_for(0, 100) == 100
    assert percentile_for(10, 100) == pytest.approx(100 - math.log(11))
    assert percentile_for(1, 100) == pytest.approx(100 - math.log(2))


@pytest.mark.parametrize("percentile", [0.0, 37.3, 97.6, 100.0])
def test_threshold_is_the_percentile_of_all_ratios_together(percentile):
    ratios = np.concatenate([(FORGET[name] / RETAIN[name]).numpy() for name in FORGET])
    assert percentile_ratio(FORGET, RETAIN, percentile) == pytest.approx(np.percentile(ratios, percentile), rel=1e-12)


def test_only_finite_ratios_count():
    retain = {"a": torch.tensor([0.0, 0.0, 1.0, 2.0])}
    assert percentile_ratio({"a": torch.tensor([0.0, 3.0, 4.0, 4.0])}, retain, 100.0) == 4.0
    assert percentile_ratio({"a": torch.zeros(4)}, {"a": torch.zeros(4)}, 50.0) == math.inf


def test_edit_uses_both_parts_and_dampens_the_share_it_announces(tmp_path):
    overrides = ["method=assd", "model.width=8", "training.epochs=3", "method.importance.gradients=per_sample"]
    bench = Workbench(composed([*overrides, f"output_dir={tmp_path}", "progress=off"]))
    fit, source = bench.method("method"), bench.reference("source").tensors
    fit.model.load_state_dict(source)
    forget, retain = (fisher_diagonal(fit.model, pairs(bench.setting.loader(part))) for part in ("forget", "retain"))
    bench.fit(fit, tmp_path / "run", "fit")
    for part, expected in (("forget", forget), ("retain", retain)):
        found = fit.accumulators[part].result()
        for name in expected.names:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-9)
    share = 1 - fit.percentile / 100
    assert fit.outcome["selected"] / fit.outcome["weights"] == pytest.approx(share, abs=0.01)
    moved = sum(int((tensor != source[name]).sum()) for name, tensor in fit.model.state_dict().items())
    assert 0 < moved <= fit.outcome["selected"]


def test_sampled_labels_go_on_where_a_stopped_run_left_them(tmp_path):
    (entry,) = (entry for entry in entries("method", []) if entry.name == "assd")
    contract = Contract(entry, tmp_path, [])
    contract.overrides += ["method.importance.labels=sampled", "method.importance.batch_size=8"]
    contract.check_repeats_and_resumes_exactly()

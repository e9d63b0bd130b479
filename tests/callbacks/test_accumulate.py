"""What a loop accumulates on the way equals what is computed afterwards."""

from functools import partial

import pytest
import torch
from pairs import pairs

from fisherexp.callbacks.accumulate import Accumulate
from fisherexp.config.explain import composed
from fisherexp.curvature import DiagonalAccumulator, FisherDiagonal, fisher_diagonal
from fisherexp.methods.method import ModelMethod
from fisherexp.runs.workbench import Workbench

SMALL = ["method=erm", "scenario=none", "model.width=4", "training.epochs=2", "progress=off"]


@pytest.mark.parametrize("labels", ["empirical", "expected"])
def test_during_test_it_is_the_fisher_of_the_evaluated_data(tmp_path, labels):
    accumulate = Accumulate(partial(DiagonalAccumulator, labels=labels), "test", "fisher.safetensors")
    bench = Workbench(composed([*SMALL, f"output_dir={tmp_path}"]), callbacks=[accumulate])
    module = ModelMethod(bench.method("method").model)
    plain = Workbench(composed([*SMALL, f"output_dir={tmp_path}"])).test(module, tmp_path, "test")
    assert bench.test(module, tmp_path, "test", own=True) == plain  # looking on changes nothing
    found = FisherDiagonal.load(tmp_path / "fisher.safetensors")
    expected = fisher_diagonal(module.model, pairs(bench.setting.loader("test")), labels=labels)
    assert found.count == expected.count == len(bench.setting.parts["test"])
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-9)


def test_during_fit_it_sees_the_last_epoch_and_leaves_the_training_alone(tmp_path):
    trained = {}
    for name in ("with", "without"):
        accumulate = Accumulate(DiagonalAccumulator, "fit", "fisher.safetensors")
        callbacks = [accumulate] if name == "with" else []
        bench = Workbench(composed([*SMALL, f"output_dir={tmp_path / name}"]), callbacks=callbacks)
        method = bench.method("method")
        bench.fit(method, tmp_path / name, "fit", own=True)
        trained[name] = method.model.state_dict()
    assert FisherDiagonal.load(tmp_path / "with" / "fisher.safetensors").count == 1200
    assert not (tmp_path / "without" / "fisher.safetensors").exists()
    for name, tensor in trained["without"].items():
        assert torch.equal(tensor, trained["with"][name]), name

"""What the loop of all optimizers records, and that a budget of processor time ends it."""

import pytest

from fisherexp.config.explain import composed
from fisherexp.experiment import run_experiment


@pytest.fixture
def run(tmp_path):
    def run(*overrides):
        cfg = composed(
            ["data=digits", "model=mlp", "model.hidden=[32]", "scenario=none", f"output_dir={tmp_path}", *overrides]
        )
        return run_experiment(cfg, tmp_path / "run", [])

    return run


def test_passes_are_recorded_and_evaluating_them_is_not_counted(run):
    record = run("method=adam", "method.epochs=3", "method.lr=0.01", "progress=off")
    passes, after = record["outcome"]["passes"], record["metrics"]["after"]
    assert len(passes) == 3
    assert passes[-1]["test_accuracy"] == pytest.approx(after["test_accuracy"])
    losses = [p["train_loss"] for p in passes]
    assert losses == sorted(losses, reverse=True)
    spent = [p["cpu_seconds"] for p in passes]
    assert 0 < spent[0] < spent[1] < spent[2]
    last = {name: after[name] for name in ("train_loss", "cpu_seconds")}
    assert last.items() <= passes[-1].items()
    assert after["forward_samples"] == after["backward_samples"] == 3 * 1200


def test_a_budget_of_processor_time_ends_the_training(run):
    budget = 0.3
    record = run("method=sgd", "method.epochs=100000", f"method.cpu_seconds={budget}", "progress=off")
    passes = record["outcome"]["passes"]
    assert 1 <= len(passes) < 100000
    assert all(p["cpu_seconds"] < budget for p in passes[:-1])
    # the last pass was broken off at the first step behind the budget
    assert record["metrics"]["after"]["backward_samples"] <= len(passes) * 1200

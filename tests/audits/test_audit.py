"""The audit as a whole: special cases whose figures are known, and figures worked out again from the artefacts."""

import json
import statistics

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, safe_open

from fisherexp.config.explain import composed, explain
from fisherexp.data.digits import Digits
from fisherexp.experiment import run_experiment
from fisherexp.metrics.divergence import jensen_shannon, zrf
from fisherexp.runs.workbench import Workbench

SMALL = [
    "model=mlp",
    "training.epochs=2",
    "scenario=class_forgetting",
    "scenario.classes=[3]",
    "logger=[]",
    "progress=off",
]


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


def config(output_dir, *options: str):
    return composed([*SMALL, *options, f"output_dir={output_dir}"])


def metrics(output_dir, *options: str) -> dict[str, dict[str, float]]:
    return run_experiment(config(output_dir, *options), output_dir / "run", list(options))["metrics"]


def trained(output_dir) -> set[str]:
    return {file.stem for file in output_dir.glob("artefacts/weights/*.safetensors")}


def test_retraining_is_the_oracle(output_dir):
    after = metrics(output_dir, "method=retrain", "audit.relearn_cap=3")["after"]
    gaps = {name: value for name, value in after.items() if name.endswith("_gap")}
    assert {"retain_accuracy_gap", "mia_gap", "svc_mia_confidence_gap", "zrf_gap", "relearn_steps_gap"} <= set(gaps)
    assert set(gaps.values()) == {0.0}
    for name in ("oracle_weights", "oracle_js_forget", "oracle_js_retain", "oracle_l2_forget", "oracle_l2_retain"):
        assert after[name] == pytest.approx(0, abs=1e-12)
    assert not any(name.endswith("_in_band") for name in after)  # one oracle has no band


def test_doing_nothing_leaves_the_source(output_dir):
    found = metrics(output_dir, "method=erm", "audit.relearn_cap=3")
    before, after = found["before"], found["after"]
    assert after["source_weights"] == 0
    assert found["oracle"]["source_weights"] == before["oracle_weights"] > 0
    assert after["relearn_steps"] == after["relearn_capped"] == 0
    assert all(after[name] == value for name, value in before.items() if name != "seconds")


def test_relearning_beyond_the_cap_is_the_cap_and_says_so(output_dir):
    oracle = metrics(output_dir, "method=erm", "audit.relearn_cap=1", "audit.relearn_tolerance=0")["oracle"]
    assert (oracle["relearn_steps"], oracle["relearn_capped"]) == (1, 1)


def test_several_oracles_are_trained_and_summed_up(output_dir):
    metrics(output_dir, "method=erm")
    before = trained(output_dir)
    found = metrics(output_dir, "method=erm", "audit.oracles=3")
    assert len(trained(output_dir) - before) == 2
    bench = Workbench(config(output_dir, "method=erm", "audit.oracles=3"))
    keys = {bench.trained("oracle").key, *(trained(output_dir) - before)}
    evaluated = {}
    for file in output_dir.glob("artefacts/metrics/*.safetensors"):
        with safe_open(file, "pt") as header:
            about = json.loads(header.metadata()["about"])
        if str(about["parts"]["weights"]) in keys:
            evaluated[about["parts"]["weights"]] = about["metrics"], load_file(file)
    assert len(evaluated) == 3
    for name in ("forget_accuracy", "retain_accuracy", "mia"):
        values = [figures[name] for figures, _ in evaluated.values()]
        assert found["oracle"][name] == pytest.approx(statistics.fmean(values))
        assert found["oracle_deviation"][name] == pytest.approx(statistics.stdev(values))
        gap = found["after"][name] - statistics.fmean(values)
        assert found["after"][f"{name}_gap"] == pytest.approx(gap)
        assert found["after"][f"{name}_in_band"] == (abs(gap) <= 2 * statistics.stdev(values))
    # Distances: of the model to each oracle, and of oracles to each other.
    model = bench.method("source.method").model.eval()
    model.load_state_dict(bench.reference("source").tensors)
    with torch.inference_mode():
        mine = model(bench.setting.parts["forget"].inputs)
    oracles = [logits["forget"] for _, logits in evaluated.values()]
    expected = statistics.fmean(jensen_shannon(mine, other).mean().item() for other in oracles)
    assert found["after"]["oracle_js_forget"] == pytest.approx(expected, rel=1e-4)
    pairs = [jensen_shannon(oracles[i], oracles[j]).mean().item() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert found["oracle"]["oracle_js_forget"] == pytest.approx(statistics.fmean(pairs), rel=1e-6)
    # ZRF: on test samples of what is forgotten, against the network that the seed gives before training.
    untrained = bench.classifier("untrained").eval()
    with torch.inference_mode():
        images = bench.setting.parts["test_forget"].inputs
        assert found["after"]["zrf"] == pytest.approx(zrf(model(images), untrained(images)), rel=1e-5)


def test_shadows_are_trained_once_for_all_methods(output_dir):
    metrics(output_dir, "method=erm")
    before = trained(output_dir)
    first = metrics(output_dir, "method=erm", "audit.shadows=4")
    shadows = trained(output_dir) - before
    assert len(shadows) == 4
    names = {"auc", "balanced_accuracy", "smallest_fpr", "tpr_at_smallest_fpr"}
    assert {n.removeprefix("lira_") for n in first["after"] if n.startswith("lira_") and "_gap" not in n} == names
    assert all(first["after"][f"lira_{name}"] == first["before"][f"lira_{name}"] for name in names)
    metrics(output_dir, "method=finetune", "method.epochs=1", "audit.shadows=4")
    assert trained(output_dir) - before == shadows


def test_shadows_of_u_lira_unlearn_with_the_runs_own_method(output_dir):
    options = ["audit=u_lira", "audit.shadows=4", "scenario=random_forgetting", "method=gradient_ascent"]
    small = [option for option in SMALL if not option.startswith("scenario")]
    cfg = composed([*small, *options, f"output_dir={output_dir}"])
    found = run_experiment(cfg, output_dir / "run", options)["metrics"]
    assert 0 <= found["oracle"]["lira_balanced_accuracy"] <= 100
    forgotten = len(Workbench(cfg).setting.parts["forget"])
    assert found["after"]["lira_smallest_fpr"] == pytest.approx(100 / forgotten)  # as many negatives as forgotten


@pytest.mark.parametrize("option", ["shadows=5", "shadows=2", "oracles=0", "population=offline", "relearn_cap=-1"])
def test_options_are_refused_in_one_line(option):
    (problem,) = explain([f"audit.{option}"])
    assert str(problem).startswith(f"audit.{option}: should be")
    assert problem.nearest.startswith("audit.")


@pytest.mark.proof
def test_lira_finds_the_members_of_an_overfitted_network_and_none_in_the_oracle(tmp_path):
    """Digits of which 30 % have a random label, learned by heart; 360 of 1200 are to be forgotten, nothing is done.

    The source gives them away; to the oracle, which never saw them, they are as the test samples.
    """
    data, draw = Digits().load(), np.random.default_rng(0)
    arrays = {}
    for split in ("train", "test"):
        images, labels = getattr(data, split).inputs.numpy(), getattr(data, split).targets.numpy()
        noise = draw.random(len(labels)) < 0.3
        arrays |= {
            f"{split}_images": images,
            f"{split}_labels": np.where(noise, draw.integers(0, 10, len(labels)), labels),
        }
    np.savez(tmp_path / "noisy.npz", **arrays)
    options = ["data=arrays", f"data.path={tmp_path / 'noisy.npz'}", "model=mlp", "method=erm", "audit=lira"]
    options += ["scenario=random_forgetting", "scenario.fraction=0.3", "audit.shadows=8", "training.epochs=60"]
    options += ["training.weight_decay=0", "logger=[]", "progress=off", f"output_dir={tmp_path}"]
    cfg = composed(options)
    found = run_experiment(cfg, tmp_path / "run", options)["metrics"]
    positives, negatives = (len(Workbench(cfg).setting.parts[part]) for part in ("forget", "test_retain"))
    error = 100 * 0.5 * (0.25 / positives + 0.25 / negatives) ** 0.5  # of a balanced accuracy at chance
    assert abs(found["oracle"]["lira_balanced_accuracy"] - 50) < 3 * error
    assert found["after"]["lira_balanced_accuracy"] > 50 + 6 * error
    assert found["after"]["lira_tpr_at_1_percent_fpr"] > 5

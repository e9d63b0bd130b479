"""The choice between candidates: by the accuracy that validation images of all tasks give, counted by hand."""

import pytest
import torch

from fisherexp.config.explain import composed
from fisherexp.methods.merging.merging import moved, task_vectors
from fisherexp.methods.merging.task_arithmetic import summed
from fisherexp.runs.finished import finished
from fisherexp.runs.workbench import Workbench

SMALL = [
    "scenario=tasks",
    "scenario.shared=20",
    "model=mlp",
    "model.hidden=[12]",
    "training.epochs=5",
    "training=small",
    "progress=off",
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Workbench:
    output_dir = tmp_path_factory.mktemp("merging")
    return Workbench(composed([*SMALL, "method=task_arithmetic", f"output_dir={output_dir}"]))


def test_the_best_candidate_on_validation_images_is_taken(bench, tmp_path):
    method, _ = finished(bench, tmp_path)
    base = bench.reference("source").tensors
    names = [name for name, _ in method.model.named_parameters()]
    start = {name: base[name] for name in names}
    vectors = task_vectors(start, list(method.given["experts"].values()))
    model, accuracies = bench.classifier("evaluate").eval(), []
    for scale in method.scales:
        model.load_state_dict(moved(start, summed(vectors), scale), strict=False)
        validation = [one.parts["validation"] for one in bench.setting.tasks.values()]
        of_tasks = [(model(part.inputs).argmax(1) == part.targets).double().mean().item() for part in validation]
        accuracies.append(100 * sum(of_tasks) / len(of_tasks))
    assert [tried["accuracy"] for tried in method.outcome["validation"]] == pytest.approx(accuracies)
    best = max(range(len(accuracies)), key=accuracies.__getitem__)
    assert method.outcome["chosen"]["scale"] == method.scales[best]
    assert len(set(accuracies)) > 3
    expected = moved(start, summed(vectors), method.scales[best])
    for name in names:
        torch.testing.assert_close(method.model.state_dict()[name], expected[name])


def test_statistics_of_batch_norm_are_averaged_and_counters_stay(tmp_path):
    options = [*SMALL, "method=average", "model.batch_norm=true", f"output_dir={tmp_path}"]
    bench = Workbench(composed(options))
    method, _ = finished(bench, tmp_path / "run")
    state, given = method.model.state_dict(), list(method.given["experts"].values())
    base = bench.reference("source").tensors
    for name in ("backbone.layers.2.running_mean", "backbone.layers.2.running_var"):
        torch.testing.assert_close(state[name], sum(expert[name] for expert in given) / len(given))
    counter = "backbone.layers.2.num_batches_tracked"
    assert torch.equal(state[counter], base[counter])

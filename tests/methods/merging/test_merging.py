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


@pytest.mark.parametrize("rule", ["average", "fisher_merging"])
def test_weights_are_chosen_for_all_tasks_or_for_the_first(rule, tmp_path):
    """Their accuracies are those of the samples that count, by hand; the same weights have others on all."""
    found = {}
    for choose_on in ("all", "first"):
        options = [
            *SMALL,
            f"method={rule}",
            "method.draws=12",
            f"method.choose_on={choose_on}",
            f"output_dir={tmp_path}",
        ]
        bench = Workbench(composed(options))
        method, _ = finished(bench, tmp_path / choose_on)
        tasks = [*bench.setting.tasks.values()][: 1 if choose_on == "first" else None]
        right = [(method.model(t.parts["validation"].inputs).argmax(1) == t.parts["validation"].targets) for t in tasks]
        assert method.outcome["chosen"]["accuracy"] == pytest.approx(100 * torch.cat(right).double().mean().item())
        found[choose_on] = [tried["accuracy"] for tried in method.outcome["validation"]]
    assert found["all"] != found["first"][:-1]
    assert max(found["first"]) >= found["first"][-1]


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

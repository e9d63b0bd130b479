"""Small-scale proof of SSD: on digits it forgets a class without hurting the others, where fine-tuning does not."""

import logging

import pytest

from fisherexp.config.explain import composed
from fisherexp.runs.workbench import Workbench

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """Metrics before and after a method, and what it says it did; sources and Fishers are shared by all tests."""
    output_dir = tmp_path_factory.mktemp("proof")

    def run(*overrides: str) -> tuple[dict, dict, dict]:
        bench = Workbench(composed([*overrides, f"output_dir={output_dir}", "progress=off"]))
        method, source = bench.method("method"), bench.reference("source")
        method.model.load_state_dict(source.tensors)
        if method.needs:
            method.given["fisher"], _ = bench.fisher(method.importance, source)
        bench.fit(method, output_dir / "run", "fit")
        return bench.evaluated("source"), bench.test(method, output_dir / "run", "test"), method.outcome

    return run


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("label", [1, 3, 8])
def test_ssd_forgets_the_class_and_keeps_the_rest(evaluate, label, seed):
    before, after, _ = evaluate(f"scenario.classes=[{label}]", f"seed={seed}", "method.alpha_relative=0.7")
    assert before["forget_accuracy"] >= 95
    # Of 65 test images none to two keep their label, by how the processor rounds.
    assert after["forget_accuracy"] <= 4
    assert before["retain_accuracy"] - after["retain_accuracy"] < 1


@pytest.mark.parametrize("label", [1, 3, 8])
def test_finetuning_does_not_forget(evaluate, label):
    _, after, _ = evaluate("method=finetune", f"scenario.classes=[{label}]")
    assert after["forget_accuracy"] >= 95


@pytest.mark.parametrize("gradients", ["method.importance.gradients=per_sample", "method.importance.batch_size=16"])
@pytest.mark.parametrize("label", [1, 3, 8])
def test_alpha_at_the_bound_changes_nothing_and_says_so(evaluate, label, gradients, caplog):
    with caplog.at_level(logging.WARNING):
        before, after, outcome = evaluate(f"scenario.classes=[{label}]", gradients, "method.alpha_relative=1.0")
    assert outcome["selected"] == 0
    assert before == after
    assert "SSD changed nothing" in caplog.text
    assert f"{outcome['bound']:.4g}" in caplog.text


def test_published_alpha_in_the_published_order_is_hardly_an_edit_on_ten_classes(evaluate):
    _, _, outcome = evaluate("scenario.classes=[3]", "method.alpha=10", "method.importance.order=by_class")
    assert outcome["selected"] < 10


def test_a_random_part_cannot_be_told_apart(evaluate):
    before, after, _ = evaluate("scenario=random_forgetting")
    assert abs(before["forget_accuracy"] - after["forget_accuracy"]) <= 2

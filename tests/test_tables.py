"""Methods run on rows of numbers as they are, with a class or a number to predict: one epoch on a table of our own."""

import math

import pytest
import torch

from fisherexp.config.explain import composed, explain
from fisherexp.experiment import run_experiment

CLASSES = [
    *((method, "none") for method in ("erm", "m_fac", "mixup", "fisher", "kfac", "low_rank_fisher")),
    *((method, "none") for method in ("magnitude_pruning", "wood_fisher", "diagonal_fisher_pruning")),
    *((method, "class_forgetting") for method in ("ssd", "lfssd", "scrub", "salun")),
    ("ssd", "random_forgetting"),
]
NUMBERS = [
    *((method, "none") for method in ("erm", "sgd", "m_fac", "fisher", "kfac", "low_rank_fisher")),
    *((method, "none") for method in ("magnitude_pruning", "wood_fisher")),
    *((method, "random_forgetting") for method in ("ssd", "gradient_ascent")),
]
FEW = {"epochs": 1, "window": 4, "samples": 2, "rank": 2}  # of a method's options, those it has


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A few dozen rows: numbers, a category with a missing value, a class of three and a number to predict."""
    draws = torch.Generator().manual_seed(0)
    lines = ["length,width,color,kind,price"]
    for row in range(72):
        length, width = torch.randn(2, generator=draws).tolist()
        kind = ("oak", "ash", "elm")[row % 3]
        color = "" if row == 5 else ("red", "green")[row % 2]
        lines.append(f"{length + row % 3:.3f},{width:.3f},{color},{kind},{3 * length - width + row % 3:.3f}")
    file = tmp_path_factory.mktemp("table") / "trees.csv"
    file.write_text("\n".join(lines))
    return file


@pytest.fixture
def run(table, tmp_path):
    def run(method, scenario, data, target, *more):
        lines = [f"method={method}", f"scenario={scenario}", f"data={data}", f"data.path={table}"]
        lines += [f"data.target={target}", "data.batch_size=16", "data.eval_batch_size=16", "data.test_share=0.25"]
        lines += ["model=mlp", "model.hidden=[6]", "callbacks=[]", "progress=off", "training.epochs=1", *more]
        lines += [f"output_dir={table.parent}"]  # sources and oracles are shared
        own = composed(lines).method
        lines += [f"method.{name}={value}" for name, value in FEW.items() if isinstance(own.get(name), int)]
        if scenario == "class_forgetting":
            lines.append("scenario.classes=[1]")
        assert explain(lines) == []
        return run_experiment(composed(lines), tmp_path / "run", lines)

    return run


@pytest.mark.parametrize(("method", "scenario"), CLASSES)
def test_classes(run, method, scenario):
    record = run(method, scenario, "csv", "kind")
    assert all(math.isfinite(value) for value in record["metrics"]["after"].values())


@pytest.mark.parametrize(("method", "scenario"), NUMBERS)
def test_numbers(run, method, scenario):
    record = run(method, scenario, "csv_regression", "price")
    assert all(math.isfinite(value) for value in record["metrics"]["after"].values())
    assert {"test_rmse", "retain_loss"} & {*record["metrics"]["after"]}


@pytest.mark.parametrize(("data", "target"), [("csv", "kind"), ("csv_regression", "price")])
def test_curvature_callbacks(run, data, target, tmp_path):
    callbacks = "callbacks=[fisher,kfac,low_rank,gradient_norms,hutchinson,eigenvalues]"
    run("finetune", "random_forgetting", data, target, callbacks)
    assert len({*(tmp_path / "run").rglob("*.safetensors")}) >= 4  # weights, and what three of them leave


def test_passes_are_evaluated_by_the_objective(run):
    record = run("adam", "none", "csv_regression", "price")
    (last,) = record["outcome"]["passes"]
    assert last["test_rmse"] == pytest.approx(record["metrics"]["after"]["test_rmse"])
    assert "test_accuracy" not in last


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["method=mixup"], "Mixup requires class_labels"),
        (["method=erm", "scenario=class_forgetting"], "ClassForgetting requires class_labels"),
        (["method=erm", "model=small_cnn"], "SmallCNN requires images"),
    ],
)
def test_numbers_are_refused_where_classes_or_images_are_required(table, line, words):
    lines = ["data=csv_regression", f"data.path={table}", "data.target=price", "scenario=none", "model=mlp", *line]
    assert any(words in str(problem) for problem in explain(lines))


def test_a_target_of_numbers_is_no_class(run):
    with pytest.raises(Exception, match="the target 'price' holds numbers, not classes: data=csv_regression"):
        run("erm", "none", "csv", "price")

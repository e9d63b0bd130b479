"""Values that no option may have: not finite, without a bound, of another type, a lone value where a node is made."""

import pytest
from omegaconf import OmegaConf

from fisherexp.config.explain import composed
from fisherexp.config.validate import validate, validate_sweep

NUMBERS = ["nan", "inf", "-inf", "1e999", "abc", "''", "[1]", "{a:1}", "true"]


def problems(compose, *lines):
    return [problem.option.partition("=")[0] for problem in validate(compose(list(lines)))]


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize(
    "line",
    [
        ["training.lr"],  # Positive
        ["training.weight_decay"],  # NonNegative
        ["training.momentum"],  # Probability
        ["method=n_harpg", "data.near"],  # a plain float
        ["checkpoint_every"],
        ["data.batch_size"],  # Count
        ["training.epochs"],  # Size
        ["seed"],
        ["draw"],
    ],
    ids=lambda line: line[-1],
)
def test_no_number(line, value, compose_quickly):
    found = problems(compose_quickly, *line[:-1], f"{line[-1]}={value}")
    assert line[-1].removeprefix("training.") in {option.rpartition(".")[2] for option in found} | set(found)


@pytest.mark.parametrize(
    "line",
    [
        "data.batch_size=1000000000000",
        "training.epochs=1000000000000",
        "seed=100000000000000000000",
        "seed=[1,2]",
        "draw=[1]",
        "output_dir=''",
        f"output_dir={'x' * 5000}",
        "method.importance=5",
        "source.method.training=abc",
        "scenario.classes=[3,inf]",
        "threads=true",
    ],
)
def test_without_a_bound_or_of_another_kind(line, compose_quickly):
    (found,) = validate(compose_quickly([line]))
    assert found.option.startswith(line.partition("=")[0])
    assert "\n" not in str(found)
    assert len(str(found)) < 600


def test_no_truth_value_stands_for_a_number(compose_quickly):
    assert problems(compose_quickly, "method=eata", "scenario.severity=true") == ["scenario.severity"]
    assert problems(compose_quickly, "method=eata", "scenario.severity=3") == []


@pytest.mark.parametrize("given", ["1000000000000", "100001"])
def test_a_name_is_made_for_each_class(given, compose_quickly):
    line = ["data=arrays", "data.path=x.npz"]
    assert problems(compose_quickly, *line, f"data.num_classes={given}") == ["data.num_classes"]
    assert problems(compose_quickly, *line, "data.num_classes=100000") == []


@pytest.mark.parametrize(("classes", "wrong"), [("[3,3]", True), ("[3,4,3]", True), ("[3,4]", False)])
@pytest.mark.parametrize(
    "line", [["scenario=class_forgetting"], ["scenario=subclass_forgetting", "data=digits_parity"]]
)
def test_a_class_is_forgotten_once(line, classes, wrong, compose_quickly):
    assert problems(compose_quickly, *line, f"scenario.classes={classes}") == ["scenario.classes"] * wrong


@pytest.mark.parametrize("method", ["robust_mean", "robust_classification", "sgr_gmm"])
def test_outliers_are_a_minority(method, compose_quickly):
    for option in ("method.contamination", "data.contamination"):
        assert problems(compose_quickly, f"method={method}", f"{option}=0.5") == [option]
        assert problems(compose_quickly, f"method={method}", f"{option}=0.49") == []


@pytest.mark.parametrize("option", ["targets", "exclude", "trained"])
def test_names_of_layers_are_searched_with_an_expression(option, compose_quickly):
    assert problems(compose_quickly, "method=lora", f"method.{option}='('") == [f"method.{option}"]
    assert problems(compose_quickly, "method=lora", f"method.{option}='^(head|body)'") == []


@pytest.mark.parametrize("name", ["../../../x", "/tmp/x", "a/b", "..", "a\\\\b"])
def test_a_file_of_a_run_stays_in_its_folder(name, compose_quickly):
    line = ["callbacks=[fisher]"]
    assert problems(compose_quickly, *line, f"callbacks.fisher.file='{name}'") == ["callbacks.fisher.file"]
    assert problems(compose_quickly, *line, "callbacks.fisher.file=x.safetensors") == []


@pytest.mark.parametrize(
    "lines",
    [
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"],
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=100000"],
        ["hydra/launcher=joblib", "hydra.launcher.backend=threading"],
        ["hydra/launcher=joblib", "hydra.launcher._target_=nowhere.Launcher"],
        ["hydra.sweeper._target_=nope"],
        ["hydra/launcher=slurm", "hydra.launcher.time=-5"],
        ["hydra/launcher=slurm", "hydra.launcher.array_parallelism=0"],
        ["hydra/launcher=slurm", "hydra.launcher.gpus_per_node=all"],
        ["hydra/launcher=slurm", "+hydra.launcher.tiem=5"],
        ["hydra/sweeper=optuna", "hydra.sweeper.direction=up"],
        ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=abc"],
        ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=0"],
        ["hydra.sweeper.max_batch_size=0"],
        ["hydra.sweeper.params=5"],
    ],
    ids=lambda lines: lines[-1],
)
def test_options_of_launchers_and_sweepers(lines):
    (found,) = validate_sweep(composed(lines, with_hydra=True).hydra)
    assert found.option.startswith(lines[-1].lstrip("+").partition("=")[0])
    assert validate_sweep(composed(lines[:-1], with_hydra=True).hydra) == []


@pytest.mark.parametrize(
    ("lines", "option", "valid"),
    [
        (["method=dare"], "method.scales", "[0.5]"),
        (["method=wise_ft"], "method.alphas", "[0.5]"),
        (["method=magnitude_pruning"], "method.sparsities", "[0.5]"),
        (["method=eata"], "scenario.corruptions", "[fog]"),
        (["method=ties"], "scenario.tasks", "[plain,fog]"),
        (["method=ssd"], "scenario.classes", "[3]"),
        (["method=ssd", "scenario=sequential_forgetting"], "scenario.requests", "[[3],[8]]"),
        (["callbacks=[neural_collapse]"], "callbacks.neural_collapse.epochs", "[1]"),
        ([], "data.superclasses", "[[1,2],[3]]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_list_of_nothing_is_nothing_to_do(lines, option, valid, compose_quickly):
    assert problems(compose_quickly, *lines, f"{option}=[]") == [option]
    assert problems(compose_quickly, *lines, f"{option}={valid}") == []


@pytest.mark.parametrize("option", ["output_dir", "data.root", "callbacks.fisher.file"])
def test_blank_text_is_no_text(option, compose_quickly):
    assert problems(compose_quickly, "callbacks=[fisher]", f"{option}=' '") == [option]
    assert problems(compose_quickly, "callbacks=[fisher]", f"{option}='a b'") == []


@pytest.mark.parametrize("value", ["1e39", "-1e300"])
def test_what_tensors_hold_as_infinity(value, compose_quickly):
    assert problems(compose_quickly, "method=n_harpg", f"data.far={value}") == ["data.far"]
    assert problems(compose_quickly, "method=n_harpg", "data.far=1e38") == []


@pytest.mark.parametrize(
    "line",
    [
        "callbacks.fisher.accumulator=5",
        "callbacks.fisher.accumulator=null",
        "callbacks.fisher.accumulator.labels=abc",
        "callbacks.fisher.accumulator.gradients=abc",
        "callbacks.kfac.accumulator.approximation=abc",
        "callbacks.eigenvalues.measure=abc",
    ],
)
def test_curvature_of_callbacks(line, compose_quickly):
    lines = ["callbacks=[fisher,kfac,eigenvalues]"]
    assert problems(compose_quickly, *lines, line) == [line.partition("=")[0]]
    assert problems(compose_quickly, *lines) == []


@pytest.mark.parametrize("option", ["output_dir", "training.lr", "training.schedule", "scenario.classes", "data.root"])
def test_a_node_is_no_value(option, compose_quickly):
    assert option in problems(compose_quickly, f"{option}=${{method}}")


def test_options_of_the_run_are_checked_as_they_resolve(compose_quickly):
    assert problems(compose_quickly, "output_dir=${seed}") == ["output_dir"]


def test_an_option_without_default_may_not_be_taken_away(compose_quickly):
    assert problems(compose_quickly, "method=ties", "~method.keep") == ["method.keep"]
    assert problems(compose_quickly, "~training.gamma") == []


def test_a_wrong_class_is_one_problem(compose_quickly):
    found = validate(compose_quickly(["training._target_=fisherexp.data.digits.Digits"]))
    (problem,) = [problem for problem in found if problem.option.startswith("training.")]
    assert "Digits has no options" in problem.reason


@pytest.mark.parametrize("part", ["launcher", "sweeper"])
def test_a_sweep_has_a_launcher_and_a_sweeper(part):
    node = OmegaConf.to_container(composed([], with_hydra=True).hydra)
    assert validate_sweep(OmegaConf.create(node)) == []
    (problem,) = validate_sweep(OmegaConf.create(node | {part: None}))
    assert problem.option == f"hydra.{part}"

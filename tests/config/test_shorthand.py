"""`source.data=NAME` is Hydra's `data@source.data=NAME`, wherever overrides are read."""

import json

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fisherexp.app import main
from fisherexp.config.explain import composed, explain, unknown_choices
from fisherexp.config.shorthand import native
from hydra_plugins.fisherexp.grid import runs

START = ["method=full", "source=trained"]


@pytest.mark.parametrize(
    ("short", "wanted"),
    [
        ("source.data=digits", "data@source.data=digits"),
        ("source.data=null", "data@source.data=null"),
        ("source.data=digits, digits_odd", "data@source.data=digits, digits_odd"),
        ("source.data=choice(digits,digits_odd)", "data@source.data=choice(digits,digits_odd)"),
        ("source.training=cifar", "training@source.training=cifar"),
    ],
)
def test_names_of_options_are_choices(short, wanted):
    assert native(short) == wanted
    assert native(wanted) == wanted


@pytest.mark.parametrize(
    "line",
    [
        "source.data={_target_: my.Data}",
        "source.data=${data}",
        "source.data.classes=[1,3]",
        "source.training.epochs=3",
        "source.path=data",
        "source=trained",
        "method.source.data=digits",
        "--multirun",
        "source.data",
    ],
)
def test_everything_else_stays(line):
    assert native(line) == line


def test_both_spellings_compose_alike():
    short = composed([*START, "source.data=digits_odd", "source.training=cifar", "source.training.epochs=3"])
    long = composed(
        [*START, "data@source.data=digits_odd", "training@source.training=cifar", "source.training.epochs=3"]
    )
    assert short == long
    assert short.source.data.classes == [1, 3, 5, 7, 9]
    assert (short.source.training.epochs, short.source.training.milestones[0]) == (3, 60)
    assert short.training.epochs == composed(START).training.epochs != 3


def test_a_misspelt_option_is_one_line_with_the_nearest():
    for check in (explain, unknown_choices):
        (problem,) = check([*START, "source.data=digits_ood"])
        assert str(problem).startswith("data@source.data=digits_ood: there is no such data")
        assert problem.nearest == "data@source.data=digits_odd"


def test_a_source_without_data_of_its_own_says_so(tmp_path):
    (tmp_path / "weights.pt").touch()
    (problem,) = explain(
        ["method=full", "source=checkpoint", f"source.path={tmp_path}/weights.pt", "source.data=digits"]
    )
    assert "data@source.data" in str(problem)


def test_a_sweep_of_the_command_line_and_one_of_an_experiment():
    parser = OverridesParser.create()
    for params, arguments in (({}, ["source.data=digits,digits_odd"]), ({"source.data": "digits,digits_odd"}, [])):
        found = runs(params, [], ["method=full", *arguments], parser)
        assert sorted(line for run in found for line in run if "@" in line) == [
            "data@source.data=digits",
            "data@source.data=digits_odd",
        ]
    # what the command line says comes before the experiment, in either spelling
    assert runs({"source.data": "digits,digits_odd"}, [], ["source.data=digits"], parser) == [
        ["data@source.data=digits"]
    ]


def test_a_sweeps_runs_are_composed_alike(compose_quickly):
    assert compose_quickly([*START, "source.data=digits_odd"]) == composed([*START, "source.data=digits_odd"])


def test_a_run_and_its_again_line(tmp_path, capsys):
    line = [*START, "source.data=digits", "data=digits_even", "model=mlp", "model.hidden=[8]", "training.epochs=1"]
    line += ["method.finetune.epochs=1", f"output_dir={tmp_path}", "progress=off", "threads=1"]
    assert main(line) == 0
    (file,) = tmp_path.glob("full/*/*/run.json")
    record = json.loads(file.read_text())
    assert "data@source.data=digits" in record["overrides"]
    assert record["source"]["origin"]["text"] == "trained on digits"
    capsys.readouterr()
    assert main(record["overrides"]) == 0  # as `again` has it: the same run
    shown = capsys.readouterr().out
    assert str(file.parent) in shown
    assert "data@source.data=digits" in shown
    assert len(list(tmp_path.glob("full/*/*/run.json"))) == 1

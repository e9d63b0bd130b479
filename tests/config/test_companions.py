"""Companions: what a method is at home with is applied to a run of that method, and nothing else is."""

import forked
import pytest
from hydra.errors import ConfigCompositionException

from fisherexp.catalogue import entries
from fisherexp.config.companions import companions
from fisherexp.config.explain import composed, explain, within_sweeps
from fisherexp.config.fit import NOT_INSTALLED
from fisherexp.config.locations import conf_dir, options, search_path
from fisherexp.runs.identity import identity, name_of

METHODS = {entry.name: entry for entry in entries("method", [])}


# Groups of which a reader of a method's file expects to be told.
COMPANIONS = {"data", "model", "scenario", "training", "callbacks", "source"}


def test_a_methods_file_names_groups_that_a_reader_expects():
    assert {group for entry in METHODS.values() for group in companions(entry.file)} == COMPANIONS


@pytest.mark.parametrize("method", [name for name, entry in METHODS.items() if entry.attributes.get("package")])
def test_the_line_of_a_method_that_is_written_on_a_package_lacks_that_alone(method):
    """Lines of all others: tests/contract/test_methods.py."""
    assert all(problem.reason.startswith(NOT_INSTALLED) for problem in explain([f"method={method}"]))


# One method for each set of companions.
ONE_OF_EACH = {str(companions(entry.file)): name for name, entry in METHODS.items()}.values()


@pytest.mark.parametrize("method", ONE_OF_EACH)
def test_named_by_hand_they_are_the_same_run(method, compose_quickly):
    named = companions(METHODS[method].file)
    by_hand = [f"{group}={_line(option)}" for group, option in named.items()]
    assert identity(compose_quickly([f"method={method}", *by_hand])) == identity(compose_quickly([f"method={method}"]))


def _line(option: str | list[str]) -> str:
    return f"[{','.join(option)}]" if isinstance(option, list) else option


def test_a_choice_of_another_scenario_is_another_run(compose_quickly):
    assert identity(compose_quickly(["method=eata", "scenario=gradual"])) != identity(compose_quickly(["method=eata"]))


@pytest.mark.parametrize(
    ("overrides", "node", "expected"),
    [
        (["method=eata"], "scenario", "continual"),
        (["method=eata", "scenario=gradual"], "scenario", "gradual"),
        (["method=eata", "data=fashion_mnist"], "data", "fashion_mnist"),
        (["method=eata", "data=fashion_mnist"], "scenario", "continual"),
        # An experiment that chooses a scenario wins over the method, whoever chose the method.
        (["experiment=ssd_digits", "method=eata"], "scenario", "class_forgetting"),
        (["experiment=mixup_digits"], "scenario", "none"),
        ([], "scenario", "class_forgetting"),
        (["method=erm"], "scenario", "none"),
    ],
)
def test_the_command_line_and_experiments_come_first(overrides, node, expected):
    assert name_of(composed(overrides), node) == expected


def test_callbacks_can_be_declined():
    assert set(composed(["method=mixup"]).callbacks) == {"neural_collapse", "reliability"}
    assert not composed(["method=mixup", "callbacks=[]"]).callbacks


@pytest.mark.parametrize(
    ("method", "node"),
    [
        ("erm", "method@source.method"),
        ("ssd", "method@source.method"),
        ("ssd", "method@oracle"),
        ("average", "method@method.experts"),
    ],
)
@pytest.mark.parametrize("other", ["mixup", "cstrl"])
def test_a_method_in_another_node_brings_none(method, node, other, compose_quickly):
    alone, together = compose_quickly([f"method={method}"]), compose_quickly([f"method={method}", f"{node}={other}"])
    changed = node.removeprefix("method@").partition(".")[0]
    assert all(alone[group] == together[group] for group in COMPANIONS - {changed})


@pytest.mark.parametrize("other", ["mixup", "cstrl"])
def test_the_same_method_as_the_runs_own_brings_its_companions(other, compose_quickly):
    """The control."""
    alone, own = compose_quickly(["method=erm"]), compose_quickly([f"method={other}"])
    assert any(alone[group] != own[group] for group in COMPANIONS)


def test_a_companion_that_cannot_be_applied_is_refused_and_not_dropped(tmp_path):
    (tmp_path / "method").mkdir()
    source = (conf_dir() / "method" / "erm.yaml").read_text()
    line = "defaults:\n  - _self_\n  - override /scenaro@_global_.scenaro: none\n"
    (tmp_path / "method" / "astray.yaml").write_text(source.replace("_target_", f"{line}_target_"))
    with pytest.raises(ConfigCompositionException, match="scenaro"):
        composed([f"hydra.searchpath=[file://{tmp_path}]", "method=astray"])


def test_options_of_a_companion_can_be_set():
    assert composed(["method=eata", "scenario.images=10"]).scenario.images == 10
    assert explain(["method=eata", "scenario.images=10"]) == []
    assert explain(["method=eata,tent", "scenario.images=10"]) == []
    (wrong,) = explain(["method=eata,tent", "scenario.imags=10"])
    assert "scenario.imags: there is no such option; nearest valid: scenario.images" in str(wrong)


def test_an_option_that_not_every_companion_of_a_sweep_has_is_refused_in_one_line():
    (wrong,) = explain(["method=ssd,eata", "scenario.classes=[3]"])
    assert str(wrong).startswith(
        "scenario.classes: there is no such option with method=eata, whose scenario is Continual"
    )
    assert explain(["method=ssd,eata"]) == []
    assert explain(["method=ssd,erm", "scenario=class_forgetting", "scenario.classes=[3]"]) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("scenario.images=50", "scenario.images=choice(50)"),
        ("training.epochs=1", "training.epochs=choice(1)"),
        ("hydra.sweep.dir=x", "hydra.sweep.dir=x"),
        ("seed=3", "seed=3"),
    ],
)
def test_options_that_companions_may_have_are_left_to_each_run(line, expected):
    assert within_sweeps(line, ["method=eata,tent", line]) == expected
    assert within_sweeps(line, ["method=eata", line]) == line


def test_a_sweep_over_methods_of_different_companions_runs(tmp_path):
    """From the command line, with an option that the default method's companions do not have."""
    small = ["training.epochs=1", "model.width=2", "threads=1", "progress=off", f"output_dir={tmp_path}"]
    done = forked.run("run.py", "-m", "method=eata,tent", "scenario.images=8", "scenario.corruptions=[fog]", *small)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*/digits/*/run.json"))) == 2


def test_every_option_that_a_companion_names_exists():
    for entry in METHODS.values():
        for group, named in companions(entry.file).items():
            found = options(group, search_path())
            assert set(named if isinstance(named, list) else [named]) <= set(found), entry.name

"""Experiments kept in files: each run of their sweeps is valid, and what they set for one method counts for it."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fisherexp.config.explain import composed
from fisherexp.config.fit import NOT_INSTALLED
from fisherexp.config.validate import validate
from fisherexp.config.yaml_files import read_yaml
from hydra_plugins.fisherexp.grid import runs

CONF = Path(__file__).parents[2] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
SETTINGS = sorted((CONF / "experiment").glob("*/*.yaml"))
OF_SCENARIOS = [file for file in SETTINGS if (CONF / "scenario" / file.name).exists()]
OF_METHODS = [file for file in SETTINGS if file not in OF_SCENARIOS]


def sweeper(experiment: str) -> dict:
    """Options of its sweeper."""
    declared = read_yaml(CONF / "experiment" / f"{experiment}.yaml")
    return declared.get("hydra", {}).get("sweeper", {})


def sweep(experiment: str) -> dict[str, list[str]]:
    """Swept option -> its values, as on a command line; of the first product, where there are further ones."""
    params = sweeper(experiment).get("params", {})
    overrides = OverridesParser.create().parse_overrides([f"{name}={values}" for name, values in params.items()])
    return {o.key_or_group: list(o.sweep_string_iterator()) for o in overrides}


def swept_runs(experiment: str) -> list[list[str]]:
    """The overrides of each of its runs."""
    swept = sweeper(experiment)
    return list(runs(swept.get("params", {}), swept.get("also", []), [], OverridesParser.create()))


def faults(cfg) -> list:
    """What the validator has to say of a run, but for packages of weights and under methods: the user's to install."""
    if OmegaConf.is_missing(cfg.data, "path"):  # the user's own files
        cfg.data.path = "."
    return [problem for problem in validate(cfg) if not problem.reason.startswith(NOT_INSTALLED)]


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.end_to_end)], ids=["ends", "every"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_runs_of_the_sweep_are_valid(experiment, every, compose_quickly):
    """Its first and last run, or all, which takes minutes."""
    found = swept_runs(experiment)
    for overrides in found if every else found[:: max(1, len(found) - 1)]:
        assert faults(compose_quickly([f"experiment={experiment}", *overrides])) == []


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name.startswith("finetuning_")])
def test_every_method_that_is_swept_fits_the_data(experiment, compose_quickly):
    """One run of each: what a method requires of data is declared by its class, far from the experiment."""
    of_methods = {next(o for o in run if o.startswith("method=")): run for run in swept_runs(experiment)}
    assert len(of_methods) > 4
    found = {m: faults(compose_quickly([f"experiment={experiment}", *run])) for m, run in of_methods.items()}
    assert {method: problems for method, problems in found.items() if problems} == {}


def ends(files: list[Path]) -> list:
    """Files as parameters; those that are neither first nor last of their experiment's are tried end to end only."""
    of_experiment = {file.parent: [other for other in files if other.parent == file.parent] for file in files}
    between = {file for found in of_experiment.values() for file in found[1:-1]}
    later = pytest.mark.end_to_end
    return [
        pytest.param(file, marks=[later] if file in between else [], id=f"{file.parent.name}-{file.stem}")
        for file in files
    ]


@pytest.mark.parametrize("file", ends(OF_METHODS))
def test_settings_of_one_method_change_that_method_and_no_other(file):
    experiment, method = file.parent.name, file.stem
    assert method in sweep(experiment)["method"]
    chosen = [f"experiment={experiment}", f"method={method}"]
    plain = OmegaConf.to_container(composed([*chosen, "~experiment@method"]).method)
    tuned = composed(chosen)
    given = OmegaConf.to_container(OmegaConf.load(file))
    expected = OmegaConf.to_container(OmegaConf.merge(plain, given))
    assert OmegaConf.to_container(tuned.method) == expected != plain
    # One that is not swept where each that is has settings.
    other = next(name for name in [*sweep(experiment)["method"], "erm"] if not file.with_stem(name).exists())
    chosen = [f"experiment={experiment}", f"method={other}"]
    assert composed(chosen).method == composed([*chosen, "~experiment@method"]).method


@pytest.mark.parametrize("file", OF_SCENARIOS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_settings_of_one_scenario_change_that_scenario_and_no_other(file):
    experiment, scenario = file.parent.name, file.stem
    assert scenario in sweep(experiment)["scenario"]
    plain, given = composed([f"scenario={scenario}"]).scenario, OmegaConf.load(file)
    tuned, other = (composed([f"experiment={experiment}", f"scenario={name}"]) for name in (scenario, "continual"))
    assert all(tuned.scenario[key] == value != plain[key] for key, value in given.items())
    shared = [key for key in other.scenario if key in tuned.scenario and key not in ("_target_", *given)]
    assert all(tuned.scenario[key] == other.scenario[key] for key in shared)
    assert set(other.scenario) == set(composed(["scenario=continual"]).scenario)


def test_the_command_line_has_the_last_word():
    overrides = ["experiment=unlearning_digits", "method=scrub", "method.lr=0.5"]
    assert composed(overrides).method.lr == 0.5

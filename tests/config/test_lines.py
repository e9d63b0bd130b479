"""Odd command lines: each is one line to read, or does what it looks like. None is a traceback or taken in silence."""

import sys

import pytest
from omegaconf import OmegaConf

from fisherexp import app, single
from fisherexp.catalogue import check, entries
from fisherexp.config.explain import composed, explain
from fisherexp.config.validate import validate


class WouldRun(BaseException):
    """Instead of a run."""


@pytest.fixture
def main(tmp_path, monkeypatch, capfd):
    """`python run.py …` up to the run: (exit status or WouldRun, what it said)."""

    def begin(*_):
        raise WouldRun

    monkeypatch.setattr(single, "_run", begin)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        try:
            status = app.main([*arguments, f"output_dir={tmp_path}/outputs"])
        except WouldRun:
            status = WouldRun
        written = capfd.readouterr()
        return status, written.err + written.out

    return call


def test_options_of_the_methods_alone_are_taken_beside_an_experiment(main):
    """The experiment's own method has no rank."""
    line = ["experiment=compression_digits", "method=qera_exact,lqer", "method.rank=8"]
    assert main(*line)[0] is WouldRun
    status, said = main(*line, "method.rnk=4")
    assert status == 2
    assert "nearest valid: method.rank" in said


def test_several_values_without_a_sweep_are_one_line(main):
    expected = "method=ssd,erm seed=1,2: several values make a sweep; nearest valid: -m method=ssd,erm seed=1,2\n"
    assert main("method=ssd,erm", "threads=1", "seed=1,2") == (2, expected)


@pytest.mark.parametrize("group", ["method", "data", "model", "scenario", "trainer", "audit", "logger", "callbacks"])
@pytest.mark.parametrize("line", ["{}=null", "{}=", "~{}"])
def test_a_group_cannot_be_left_out(line, group):
    (problem,) = explain([line.format(group)])
    assert "has to be chosen" in problem.reason
    assert explain([problem.nearest]) == [] or group in ("model", "scenario")  # SSD needs a network and a scenario


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["~seed"], "seed: a run needs a value"),
        (["method=''"], "some method has to be chosen"),
        (["data=[]"], "some data has to be chosen"),
        (["method=[ssd]"], "a run has one method"),
        (["method=EATA"], "nearest valid: method=eata"),
        (["seed=range(0,10,0)"], "a sweep over nothing"),
        (["source=run", f"source.run={'y' * 300}"], "no run in outputs"),
        (["method=[ssd,erm]"], "a run has one method; nearest valid: -m method=a,b"),
        (["seed=range(0)"], "a sweep over nothing"),
        (["seed=range(5,1)"], "a sweep over nothing"),
        (["method=glob(zz*)"], "a sweep over nothing"),
        (["+judge_on={a:1}"], "judge_on: there is no such option"),
        (["experiment=nope"], "there is no such experiment"),
        (["hydra.searchpath=[pkg://nope]"], "there is no such package or folder"),
        (["hydra.searchpath=[pkg://nope.conf]"], "there is no such package or folder"),
        (["hydra.searchpath=[file:///nope]"], "there is no such package or folder"),
        (["hydra.searchpath=null"], "there is no such package or folder"),
        (["data=arrays", "data.path=~/x.npz"], """nearest valid: 'data.path="~/x.npz"'"""),
        (
            ["method._target_=fisherexp.methods.unlearning.ssd.SDD"],
            "nearest valid: method._target_=fisherexp.methods.un",
        ),
        ([f"method={'y' * 5000}"], "there is no such method"),
    ],
    ids=lambda value: value[-1][:40] if isinstance(value, list) else "",
)
def test_one_line(line, words):
    (problem,) = explain(line)
    assert words in str(problem)
    assert len(str(problem)) < 600


def test_the_nearest_name_is_not_lost_in_a_list_of_all():
    (problem,) = explain(["method=eataa"])
    assert str(problem).endswith("nearest valid: method=eata")
    assert len(str(problem)) < 120


def test_a_glob_over_a_group_is_its_options():
    assert explain(["method=glob(ss*)", "seed=0,1"]) == []
    assert [str(p) for p in explain(["method=glob(*ssd)", "seed=x"])] == [
        "seed=x: should be a valid integer; nearest valid: seed=0"
    ]


def test_no_experiment_is_what_a_run_begins_with(main):
    assert composed(["experiment=null", "seed=2"]) == composed(["seed=2"])
    assert main("experiment=null")[0] is WouldRun


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "--cfg", "job"], "--cfg: shows the config of one run"),
        (["-m", "seed=range(0)"], "a sweep over nothing"),
        (["--help", "method=sdd"], "method=sdd: there is no such method"),
        (["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=abc"], "hydra.sweeper.n_trials=abc: should be"),
        (["-m", "hydra.launcher=null", "seed=0,1"], "hydra.launcher: names no class to make it of"),
        (["data=image_folder", "data.path=x", "data.workers=100000"], "data.workers=100000: this machine has"),
        (["trainer.devices=999"], "trainer.devices=999: this machine has"),
        (["threads=100000"], "threads=100000: this machine has"),
        (["trainer.num_nodes=2"], "trainer.num_nodes=2: nothing started this process on several machines"),
        (["training.lr=inf"], "training.lr=inf: should be a finite number; nearest valid: training.lr=0.05"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_refused_before_anything_is_run(main, monkeypatch, arguments, words):
    for variable in ("SLURM_NTASKS", "MASTER_ADDR", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(variable, raising=False)
    status, said = main(*arguments)
    assert status == 2
    assert words in said
    assert len(said.splitlines()) == 1


def test_flags_may_stand_among_the_options(main):
    status, said = main("method=erm", "-m", "scenario=none", "seed=0,abc")
    assert (status, said.splitlines()) == (2, ["seed=abc: should be a valid integer; nearest valid: seed=0"])


def test_an_unknown_flag_is_two_lines(main, capfd):
    with pytest.raises(SystemExit):
        main("--nope")
    assert len(capfd.readouterr().err.splitlines()) == 2


def test_several_machines_are_taken_where_something_started_them(main, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert main("method=erm", "scenario=none", "trainer.num_nodes=2")[0] is WouldRun


OWN = "from fisherexp.methods.method import ModelMethod\n\n\nclass Own(ModelMethod):\n    pass\n"


@pytest.mark.parametrize(
    ("code", "config", "words"),
    [
        ("class Own(:\n", "_target_: {}.Own\n", ".py:1 is no Python: "),
        ("import nope_there\n" + OWN, "_target_: {}.Own\n", ".py:1 imports 'nope_there', which is not installed"),
        (
            "try:\n    import nope_there\nexcept ImportError:\n    pass\n" + OWN,
            "_target_: {}.Own\nb: 1\n",
            "no such option",
        ),
        (OWN, "", "method: names no class"),
        (OWN, "factor: 1\n", "method: names no class"),
        (OWN, "5\n", "holds no options"),
        (OWN, "_target_: [\n", "while parsing"),
        (OWN, "_target_: {}.Onw\n", "has no class or function 'Onw'; nearest valid: method._target_={}.Own"),
        (OWN, "_target_: {}x.Own\n", "there is no module"),
        (OWN, "defaults: [own]\n_target_: {}.Own\n", "a config file names itself in its defaults"),
        (OWN.replace("pass", "def __init__(self, model, a: float): pass"), "_target_: {}.Own\n", "method.a: Own needs"),
        (OWN, "_target_: {}.Own\nfactor: 1\n", "Own has no such option"),
    ],
)
def test_a_file_of_ones_own(code, config, words, tmp_path, monkeypatch, request):
    name = f"own_{request.node.callspec.indices['code']}{abs(hash(config)) % 10**6}"
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "own.yaml").write_text(config.format(name))
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    (problem,) = explain([f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "method=own", "scenario=none"])
    assert words.format(name) in str(problem)
    assert f"nearest valid: method._target_={name}.Onw" not in str(problem)


@pytest.mark.parametrize(
    "config", [b"- a\n", b"5\n", b"_target_: [\n", b"defaults: 5\n", b"# \xe9\n", b"defaults: [own]\n", b""]
)
def test_a_file_that_is_no_config_is_listed(config, tmp_path):
    """`list` and `methods` show the others; `check own` says what is wrong with it."""
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "own.yaml").write_bytes(config)
    own = {entry.name: entry for entry in entries("method", [str(tmp_path)])}["own"]
    assert own.companions == {}
    assert check([f"hydra.searchpath=[file://{tmp_path}]", "method=own"])


def test_options_that_nothing_reads_are_said_to_be_misplaced():
    """As of a conf/local/default.yaml or an experiment that does not begin with '# @package _global_'."""
    cfg = composed([])
    OmegaConf.set_struct(cfg, False)
    cfg.local = {"seed": 3}
    (problem,) = validate(cfg)
    assert problem.option == "local"
    assert "@package _global_" in problem.nearest

"""A result whose code has changed says so wherever it is shown, and `rerun=stale` makes it again and no other."""

import json
import os
from pathlib import Path

import forked
import pytest
from forked import REPOSITORY

from fisherexp.config.explain import explain
from fisherexp.reports.caption import CHANGED as MARK
from fisherexp.reports.comparison import compare
from fisherexp.reports.summary import CHANGED, again, print_line, print_summary
from fisherexp.reports.table import formatted
from fisherexp.runs import code
from fisherexp.runs.code import RUNNER, code_of, has_changed
from fisherexp.runs.state import RunFolder
from fisherexp.sweeps.status import standings

METHOD = '''
"""Trains as ERM does."""
from fisherexp.methods.training.erm import ERM


class Own(ERM):
    paper = "nobody, nowhere"
'''
YAML = "# as erm\n_target_: own_methods.own.Own\ntraining: ${training}\n"
SWEEP = [
    "-m",
    "hydra.searchpath=[pkg://own_methods.conf]",
    "method=own,erm",
    "scenario=none",
    "model=mlp",
    "training.epochs=1",
]


def test_a_sweep_says_which_results_are_of_other_code_and_makes_those_again(tmp_path):
    package = tmp_path / "own_methods"
    (package / "conf" / "method").mkdir(parents=True)
    for folder in (package, package / "conf"):
        (folder / "__init__.py").touch()
    (package / "own.py").write_text(METHOD)
    (package / "conf" / "method" / "own.yaml").write_text(YAML)

    def launch(*options: str, light: bool = False) -> list[str]:
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}
        command = [*SWEEP, f"output_dir={tmp_path / 'out'}", *options]
        program = f"import sys; from fisherexp.app import main; rc = main({command})"
        program += "; sys.exit(rc or 'torch' in sys.modules)" if light else "; sys.exit(rc)"
        done = (forked.run_anew if light else forked.run)("-c", program, env=environment)
        assert done.returncode == 0, done.stderr
        return sorted(line for line in done.stdout.splitlines() if line.startswith(("found", "done")))

    def words(lines: list[str]) -> list[tuple[str, str, bool]]:
        return [(line.split()[0], Path(line.split()[1]).parts[-3], CHANGED in line) for line in lines]

    assert words(launch()) == [("done", "erm", False), ("done", "own", False)]
    (package / "own.py").write_text(METHOD.replace("nowhere", "somewhere") + "    # a comment\n    bias = 0.1\n")
    assert words(launch(light=True)) == [("found", "erm", False), ("found", "own", True)]
    assert words(launch("rerun=stale")) == [("done", "own", False), ("found", "erm", False)]
    assert words(launch("rerun=stale", light=True)) == [("found", "erm", False), ("found", "own", False)]


@pytest.fixture
def record() -> dict:
    """As small as a record can be that is asked for its code."""
    semantic = {"method": {"_target_": "fisherexp.methods.training.erm.ERM", "lr": 1}, "seed": 0}
    return {
        "semantic": semantic,
        "code": {"commit": None, "dirty": None, "closure": code_of(RUNNER, semantic["method"]["_target_"])},
        "names": {"method": "erm", "data": "digits", "model": "mlp", "scenario": "none"},
        "config": {"scenario": {}},
        "seed": 0,
        "headings": {"accuracy": "acc. %"},
        "better": {},
        "metrics": {"after": {"accuracy": 90.0}},
        "trial": False,
        "finished": "today",
        "command": "python run.py method=erm",
        "identity": "0",
    }


def test_code_has_changed_where_it_is_other_code_gone_or_unknown(record):
    assert not has_changed(record)
    assert has_changed(record | {"code": {"commit": None, "dirty": None}})
    assert has_changed(record | {"code": {"closure": "0" * 20}})
    gone = {"method": {"_target_": "fisherexp.methods.training.gone.Gone"}}
    assert has_changed(record | {"semantic": gone})
    assert not has_changed(record | {"semantic": record["semantic"] | {"seed": 3}})  # options are no code


@pytest.mark.parametrize(
    ("rerun", "changed", "settled"),
    [(False, False, True), (False, True, True), (True, False, False), ("stale", False, True), ("stale", True, False)],
)
def test_which_runs_are_made_again(rerun, changed, settled, record, tmp_path):
    folder = RunFolder(tmp_path)
    assert not folder.is_settled(rerun)  # never made
    code_now = {"closure": "of yesterday"} if changed else record["code"]
    folder.record_file.write_text(json.dumps(record | {"code": code_now}))
    assert folder.is_settled(rerun) == settled


@pytest.mark.parametrize("changed", [True, False])
def test_summary_line_and_status_say_it(record, changed, tmp_path, capsys):
    record |= {"code": {"closure": "of yesterday"}} if changed else {}
    print_line(record, tmp_path, True, has_changed(record))
    print_summary(record, tmp_path, True, has_changed(record))
    assert capsys.readouterr().out.count(CHANGED) == 2 * changed
    folder = tmp_path / "erm" / "digits" / "0"
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    (folder / "run.json").write_text(json.dumps(record))
    (standing,) = standings(tmp_path)
    assert ("rerun=stale" in standing.remark) == changed


def test_tables_mark_rows_with_such_runs(record):
    other = record | {"names": record["names"] | {"method": "own"}, "code_changed": True}
    table = formatted(compare([record | {"code_changed": False}, other]))
    assert [line[0] for line in table.cells] == ["erm", f"own {MARK}"]
    assert any(note.startswith(f"{MARK}: the code behind 1 of the runs") for note in table.notes)
    assert not any(MARK in note for note in formatted(compare([record])).notes)


def test_the_command_that_repeats_a_run_repeats_it_whatever_its_code():
    assert again("python run.py rerun=stale seed=1") == "python run.py seed=1 rerun=true"


def test_the_option_is_checked():
    assert explain(["rerun=stale"]) == explain(["rerun=true"]) == []
    (problem,) = explain(["rerun=stael"])
    assert problem.nearest == "rerun=stale"


def test_many_questions_are_cheap(record, monkeypatch):
    """Asked again, a hash costs a look at the files' dates: nothing is parsed."""
    has_changed(record)
    monkeypatch.setattr("fisherexp.runs.modules.ast.parse", lambda *a, **k: pytest.fail("parsed again"))
    monkeypatch.setattr(code, "closure", lambda *a, **k: pytest.fail("searched again"))
    for _ in range(100):
        assert not has_changed(record)

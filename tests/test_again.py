"""The line that makes a run again, and `reproduce`: from another directory, for a method from outside."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fisherexp.config.locations import searched
from fisherexp.reports.summary import again
from fisherexp.runs.record import command

METHOD = '''
"""Trains as ERM does."""
from fisherexp.methods.training.erm import ERM


class Own(ERM):
    paper = "nobody, nowhere"
'''
RUN = """
import sys
from fisherexp.app import main
sys.path.insert(0, "")
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("given", ["rerun=false", "rerun=true", "++rerun=false", "rerun=stale"])
def test_again_says_once_that_it_runs_again(given):
    line = again(command(["method=erm", given, "data.path=a b.npz"]))
    assert shlex.split(line)[-3:] == ["method=erm", "data.path=a b.npz", "rerun=true"]


def test_further_directories_are_an_override_and_none_is_none(tmp_path):
    ours = [{"provider": "hydra", "schema": "pkg", "path": "hydra.conf"}]
    ours += [
        {"provider": "main", "schema": "file", "path": "/x/conf"},
        {"provider": "schema", "schema": "x", "path": ""},
    ]
    assert searched(ours) == []
    odd = tmp_path / "it's my wörk, [so]"
    given = [{"provider": "hydra.searchpath in command-line", "schema": "file", "path": str(odd)}]
    given += [{"provider": "command-line", "schema": "pkg", "path": "my_package.conf"}]
    (line,) = searched([*ours, *given])
    assert OverridesParser.create().parse_override(line).value() == [f"file://{odd}", "pkg://my_package.conf"]


@pytest.mark.end_to_end
def test_a_method_from_outside_is_reproduced_from_another_directory(tmp_path):
    home, elsewhere = tmp_path / "my wörk", tmp_path / "elsewhere"
    (home / "own_package" / "conf" / "method").mkdir(parents=True)
    elsewhere.mkdir()
    for folder in ("own_package", "own_package/conf"):
        (home / folder / "__init__.py").touch()
    (home / "own_package" / "own.py").write_text(METHOD)
    (home / "own_package" / "conf" / "method" / "own.yaml").write_text(
        "# own\n_target_: own_package.own.Own\ntraining: ${training}\n"
    )
    options = ["method=own", "scenario=none", "model=mlp", "training.epochs=1", "threads=1", "rerun=false"]
    search = ["hydra.searchpath=[pkg://own_package.conf]"]
    done = subprocess.run([sys.executable, "-c", RUN, *search, *options], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = home.glob("outputs/own/digits/*/run.json")
    assert json.loads(file.read_text())["directory"] == str(home)
    assert "hydra.searchpath=[pkg://own_package.conf]" in shlex.split(done.stdout.split("again", 1)[1])

    reproduce = [sys.executable, "-m", "fisherexp", "reproduce", file.parent.name, "--run", "-o", str(home / "outputs")]
    again_there = subprocess.run(reproduce, cwd=elsewhere, capture_output=True, text=True)
    assert again_there.returncode == 0, again_there.stdout + again_there.stderr
    assert "every figure is the same" in again_there.stdout
    assert f"cd {shlex.quote(str(home))}\n" in again_there.stdout
    assert list(Path(elsewhere).iterdir()) == []

"""A run that is found says which loggers hear nothing of it."""

import pytest

from fisherexp.runs.state import RunFolder
from fisherexp.single import show

RECORD = {
    "identity": "0123",
    "names": {"method": "erm", "data": "digits", "model": "mlp", "scenario": "none"},
    "semantic": {},
    "config": {"scenario": {}, "logger": {"csv": {}}},
    "seed": 0,
    "headings": {"accuracy": "acc. %"},
    "metrics": {"after": {"accuracy": 90.0}},
    "trial": False,
    "command": "python run.py",
}


@pytest.mark.parametrize("sweep", [True, False])
@pytest.mark.parametrize(
    ("loggers", "found", "told"),
    [(["csv", "wandb"], True, "wandb"), (["csv"], True, None), ([], True, None), (["wandb"], False, None)],
)
def test_loggers_that_hear_nothing_are_named(tmp_path, capsys, monkeypatch, sweep, loggers, found, told):
    monkeypatch.setattr(RunFolder, "record", lambda folder: RECORD)
    show(RunFolder(tmp_path), sweep, found, loggers)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"nothing is told to {told}: the run was found") == (told is not None)

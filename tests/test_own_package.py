"""A package of one's own in the working directory is found, with or without __init__.py, and without a warning."""

import os
import sys
import warnings

import pytest

from fisherexp import cli
from fisherexp.config.locations import allow_namespaces


def warned(name: str) -> bool:
    """Whether Hydra's words about this package would be seen."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        allow_namespaces([f"hydra.searchpath=[pkg://{name}]", "method=mine"])
        warnings.warn(f"provider=hydra.searchpath in command-line, path={name} is not available.", stacklevel=1)
    return bool(seen)


@pytest.mark.parametrize(("name", "seen"), [("own_plain.conf", False), ("own_plain.nope", True), ("nope.conf", True)])
def test_hydra_warns_only_of_what_is_not_there(tmp_path, monkeypatch, name, seen):
    (tmp_path / "own_plain" / "conf" / "method").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    assert warned(name) == seen


@pytest.mark.parametrize("there", [True, False])
def test_the_script_looks_where_python_m_does(tmp_path, monkeypatch, there):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*([""] if there else []), "elsewhere"])
    monkeypatch.setattr(cli, "app", lambda: None)
    cli.main()
    assert sys.path == ([""] if there else [os.getcwd()]) + ["elsewhere"]

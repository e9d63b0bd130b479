"""`check` and `contract`: does everything compose, and does a method keep what every method owes its users?"""

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fisherexp.cli.options import Search
from fisherexp.config.problem import Problem, nearest

if TYPE_CHECKING:
    from fisherexp.catalogue import Entry


def check(
    methods: Annotated[list[str] | None, typer.Argument(help="Only these.")] = None, search_path: Search = []
) -> None:
    """Compose and validate every method, scenario, data set and so on, without running anything."""
    from fisherexp.catalogue import PLAIN, combinations, company, entries
    from fisherexp.catalogue import check as check_one

    _known(methods or [], entries("method", search_path))
    searched = [f"hydra.searchpath=[{','.join(search_path)}]"] if search_path else []
    trials = list(combinations(search_path, methods))
    if not methods:
        for entry in entries("data", search_path):
            trials.append(company(entry, search_path))
        trials += [company(entry, search_path) for entry in entries("model", search_path) if entry.name != "none"]
        trials += [[f"experiment={entry.name}"] for entry in entries("experiment", search_path)]
        trials += [[f"audit={entry.name}"] for entry in entries("audit", search_path)]
        # Plain training is what every trainer takes; not all of them take a method that needs whole weights.
        trials += [[*PLAIN, f"trainer={entry.name}"] for entry in entries("trainer", search_path)]
    wrong = 0
    for trial in trials:
        for problem in check_one([*trial, *searched]):
            wrong += 1
            print(f"{' '.join(trial)}: {problem}", file=sys.stderr)
    print(f"{len(trials)} compositions checked, {wrong} problem{'s' if wrong != 1 else ''}")
    raise typer.Exit(1 if wrong else 0)


def contract(
    methods: Annotated[list[str], typer.Argument(help="Names of methods, ours or from the search path.")],
    search_path: Search = [],
) -> None:
    """Check what every method owes its users: it changes something, repeats and resumes exactly, no option is idle…"""
    from fisherexp.catalogue import entries
    from fisherexp.contract.method import Contract
    from fisherexp.contract.options import Options

    found = {entry.name: entry for entry in entries("method", search_path)}
    _known(methods, found.values())
    broken = 0
    for name in methods:
        with tempfile.TemporaryDirectory() as scratch:
            for check_name, check_method in Contract(found[name], Path(scratch), search_path).checks().items():
                try:
                    check_method()
                    print(f"{name}  {check_name:<28} kept")
                except AssertionError as error:
                    broken += 1
                    print(f"{name}  {check_name:<28} BROKEN: {error}")
            faults = Options(found[name], Path(scratch), search_path).faults()
            broken += len(faults)
            for fault in faults:
                print(f"{name}  {'options':<28} BROKEN: {fault}")
            if not faults:
                print(f"{name}  {'options':<28} kept")
    raise typer.Exit(1 if broken else 0)


def _known(names: Iterable[str], methods: "Iterable[Entry]") -> None:
    """Exits with 2 for a name that no method has."""
    there = [method.name for method in methods]
    wrong = [Problem(name, "there is no such method", nearest(name, there)) for name in names if name not in there]
    for problem in wrong:
        print(problem, file=sys.stderr)
    if wrong:
        raise typer.Exit(2)

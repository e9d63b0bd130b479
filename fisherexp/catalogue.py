"""What there is to choose from, and whether it fits together. Reads config files and signatures, imports no method."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fisherexp.config.companions import companions, standard
from fisherexp.config.declared import TargetNotFound, declared
from fisherexp.config.explain import UNCOMPOSABLE, composed
from fisherexp.config.fit import NOT_INSTALLED
from fisherexp.config.locations import headline, options, search_path, target
from fisherexp.config.nodes import lacking, requirements
from fisherexp.config.problem import Problem
from fisherexp.config.validate import unchecked, validate

DATA = "digits"  # of a method that names no data
PLAIN = ("method=erm", "scenario=none")
GROUPS = ("method", "scenario", "data", "model", "audit")
METHODS = "fisherexp.methods."


@dataclass(frozen=True)
class Entry:
    """One option of a config group: its name, its one-line description, its paper."""

    group: str
    name: str
    file: Path
    description: str
    attributes: dict

    @property
    def paper(self) -> str:
        return self.attributes.get("paper", "")

    @property
    def companions(self) -> dict[str, str | list[str]]:
        """Config group -> option that a method names for it; empty for other groups."""
        return companions(self.file) if self.group == "method" else {}


def wing(file: Path) -> str:
    """The package below fisherexp.methods in which the class of a method's file lies; of a class from elsewhere its
    top package; "own" where the file names no class."""
    return (target(file) or "own").removeprefix(METHODS).partition(".")[0]


def by_wing(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Wing -> its methods' files, in alphabetical order."""
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(wing(file), []).append(file)
    return dict(sorted(found.items()))


def at_home(method: Entry) -> str:
    """Where `method=<name>` alone runs: scenario, data and model, and the callbacks that come along."""
    chosen = standard() | method.companions
    words = [str(chosen[group]) for group in ("data", "model", "scenario") if chosen[group] != "none"]
    return ", ".join([*words, *chosen.get("callbacks", [])])


def entries(group: str, extra: list[str]) -> list[Entry]:
    """The options of a group; `extra` are further entries of the search path."""
    found = []
    for name, file in options(group, search_path(extra)).items():
        class_name = target(file)
        try:
            attributes = declared(class_name).attributes if class_name else {}
        except TargetNotFound:
            attributes = {}
        found.append(Entry(group, name, file, headline(file), attributes))
    return found


def combinations(extra: list[str], methods: list[str] | None = None) -> Iterator[list[str]]:
    """Overrides that choose a method and a scenario: each method with its companions, and then for named methods every
    scenario they accept, else one of each kind that a method accepts, and every scenario at least once."""
    scenarios = entries("scenario", extra)
    data = {entry.name: set(entry.attributes.get("provides", ())) for entry in entries("data", extra)}
    met: set[str] = set()
    # Those with data of their own last: classes that a scenario names are those of the default data.
    for method in sorted(entries("method", extra), key=lambda method: method.companions.get("data", DATA) != DATA):
        if methods and method.name not in methods:
            continue
        yield [f"method={method.name}"]
        accepted = method.attributes.get("scenarios", ())
        provided = data[method.companions.get("data", DATA)]
        for scenario in scenarios:
            kind = scenario.attributes.get("kind", "plain")
            if (accepted and kind not in accepted) or lacking(scenario.attributes.get("requires", ()), provided):
                continue
            new = {f"{method.name} {kind}", scenario.name}
            if methods or not new <= met:
                met |= new
                yield [f"method={method.name}", f"scenario={scenario.name}"]


def company(entry: Entry, extra: list[str]) -> list[str]:
    """Overrides that make a run of one option of `data` or `model`: a method that is about such a problem, a network
    that takes such samples, or samples that such a network takes."""
    kinds = set(_problems(entry))
    if "supervised" in kinds:
        kinds, found = {"supervised"}, [*PLAIN, f"{entry.group}={entry.name}"]
    else:
        provided = set(entry.attributes.get("provides", ()))
        about = (
            method
            for method in entries("method", extra)
            if set(_problems(method)) & kinds
            and (entry.group == "model" or not lacking(method.attributes.get("requires", ()), provided))
        )
        found = [f"method={next(about).name}", f"{entry.group}={entry.name}"]
    other = "model" if entry.group == "data" else "data"
    for candidate in entries(other, extra):
        data, model = (entry, candidate) if entry.group == "data" else (candidate, entry)
        fits = not lacking(requirements(model.attributes, "model"), data.attributes.get("provides", ()))
        if fits and kinds & set(_problems(candidate)) and target(model.file):
            return [*found, f"{other}={candidate.name}"]
    return found


def _problems(entry: Entry) -> tuple[str, ...]:
    return entry.attributes.get("problems", ("supervised",))


def check(overrides: list[str]) -> list[Problem]:
    """Problems of one composition, and options that nothing checks; a value that only the user can give (`???`) and a
    package that is not installed, of weights or under a method, are no problems."""
    try:
        cfg = composed(overrides)
        found = [*validate(cfg), *unchecked(cfg)]
    except (*UNCOMPOSABLE, OSError) as error:  # OmegaConf's of a file that holds a lone number
        return [Problem(" ".join(overrides), " ".join(str(error).split()))]
    of_user = ("needs a value", NOT_INSTALLED)
    return [problem for problem in found if not problem.reason.startswith(of_user)]

"""Checks a composed config against the signatures of what it instantiates; reports every problem at once."""

import difflib
import functools
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Lt
from omegaconf import DictConfig, OmegaConf

from fisherexp.config import types
from fisherexp.config.declared import Declared, TargetNotFound, declared
from fisherexp.config.locations import WEIGHTS, files_nearby, finished_run, user_file

ROOT = "fisherexp.config.root.Root"
# Keys Hydra's instantiate reads itself.
HYDRA_KEYS = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}


@dataclass(frozen=True)
class Problem:
    """One wrong option: what, why, and the nearest valid choice (None where the default is the best advice)."""

    option: str
    reason: str
    nearest: str | None = None

    def __str__(self) -> str:
        advice = f"; nearest valid: {self.nearest}" if self.nearest else ""
        return f"{self.option}: {self.reason}{advice}"


class ConfigError(Exception):
    """A config that cannot be run. `str()` is one line a problem."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


def nearest(name: str, valid: typing.Iterable[str]) -> str | None:
    """The valid name most like `name`, if any is like it at all."""
    return next(iter(difflib.get_close_matches(name, list(valid), n=1, cutoff=0.4)), None)


def validate(cfg: DictConfig) -> list[Problem]:
    """All problems of a composed config: unknown and ill-typed options, values out of range, parts that do not fit."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    namespace = _namespace(cfg)
    problems = list(_check_options("", _scalars(plain), declared(ROOT), namespace))
    for path, target in _targets(plain):
        try:
            declaration = declared(target)
        except TargetNotFound as error:
            problems.append(Problem(f"{path}._target_={target}", str(error)))
            continue
        node = OmegaConf.to_container(OmegaConf.select(cfg, path), resolve=True)
        problems += _check_options(path, node, declaration, namespace)
    problems += _check_problem(cfg)
    problems += _check_requires(cfg)
    problems += _check_fit(cfg)
    problems += _check_evaluate(cfg)
    problems += _check_source(cfg)
    return problems


def _scalars(plain: dict) -> dict:
    """The run's own options: what is no config group."""
    return {key: value for key, value in plain.items() if not isinstance(value, dict | list)}


def _targets(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield path, node["_target_"]
        for key, value in node.items():
            yield from _targets(value, f"{path}.{key}" if path else key)


def _namespace(cfg: DictConfig) -> dict[str, Any]:
    """What an annotation may name. `ClassLabel` is bounded by the number of classes of the chosen data."""
    names = {k: v for k, v in vars(types).items() if not k.startswith("_")}
    names |= {
        "Literal": typing.Literal,
        "Optional": typing.Optional,
        "Union": typing.Union,
        "Any": typing.Any,
    }
    classes = num_classes(cfg)
    if classes:
        names["ClassLabel"] = Annotated[types.ClassLabel, Lt(classes)]
    return names


def num_classes(cfg: DictConfig) -> int | None:
    """Number of classes the data declares (or the user gives as `data.num_classes`, or chooses as `data.classes`); None
    where only the files tell."""
    if chosen := OmegaConf.select(cfg, "data.classes"):
        return len(chosen)
    given = OmegaConf.select(cfg, "data.num_classes")
    return given if isinstance(given, int) else attribute(cfg, "data", "num_classes")


def attribute(cfg: DictConfig, node: str, name: str, default: Any = None) -> Any:
    """A literal class attribute of what `node` would instantiate."""
    target = OmegaConf.select(cfg, f"{node}._target_")
    try:
        return declared(target).attributes.get(name, default) if target else default
    except TargetNotFound:
        return default


def _check_options(path: str, node: dict, declaration: Declared, namespace: dict) -> Iterator[Problem]:
    for key, value in node.items():
        option = f"{path}.{key}" if path else key
        if key in HYDRA_KEYS:
            continue
        if key not in declaration.parameters:
            if not declaration.open:
                near = nearest(key, declaration.parameters)
                name = declaration.target.rpartition(".")[2]
                yield Problem(option, f"{name} has no such option", near and f"{path}.{near}".lstrip("."))
            continue
        if value == "???":
            yield Problem(option, "needs a value")
        elif not (isinstance(value, dict) and "_target_" in value):
            problem = _check_value(option, value, declaration.parameters[key], namespace)
            if problem:
                yield problem


def unchecked(cfg: DictConfig) -> list[Problem]:
    """Options whose values `validate` lets pass because their annotation says nothing that can be checked. A node that
    instantiates something is no value: its own options are checked."""
    namespace, problems = _namespace(cfg), []
    plain = OmegaConf.to_container(cfg, resolve=False)
    for path, target in [("", ROOT), *_targets(plain)]:
        try:
            declaration = declared(target)
        except TargetNotFound:
            continue
        node = OmegaConf.to_container(OmegaConf.select(cfg, path), resolve=True) if path else _scalars(plain)
        for key, value in node.items():
            annotation = declaration.parameters.get(key, "Any")
            if key not in HYDRA_KEYS and not _is_made(value, annotation) and _checker(annotation, namespace) is None:
                said = f"annotated {annotation}" if annotation else "not annotated"
                reason = f"{declaration.target} leaves it {said}, which cannot be checked"
                problems.append(
                    Problem(f"{path}.{key}".lstrip("."), reason, "a type of fisherexp.config.types, or Any")
                )
    return problems


def _is_made(value: Any, annotation: str | None) -> bool:
    """Is the value what its node instantiates (or several of them), or left out where it may be?"""
    if isinstance(value, list):
        return bool(value) and all(_is_made(item, annotation) for item in value)
    if value is None:
        return (annotation or "").endswith("| None")
    return isinstance(value, dict) and "_target_" in value


def _check_value(option: str, value: Any, annotation: str | None, namespace: dict) -> Problem | None:
    checker = _checker(annotation or "Any", namespace)
    if checker is None:  # a type from some other package, say: its constructor will check
        return None

    from pydantic import ValidationError

    try:
        checker.validate_python(value)
    except ValidationError as error:
        return _describe(option, value, error.errors())
    return None


def _checker(annotation: str | None, namespace: dict) -> Any:
    """Pydantic's checker for an annotation; None where it names what is not in `namespace`, or there is none."""
    try:
        wanted = eval(annotation or "", {}, namespace)
        wanted = eval(wanted, {}, namespace) if isinstance(wanted, str) else wanted
    except (NameError, AttributeError, TypeError, SyntaxError):
        return None
    return _adapter(wanted)


@functools.cache
def _adapter(wanted: Any) -> Any:
    """Pydantic's checker for a type; None for a type it has no notion of."""
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(wanted, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    except PydanticUserError:
        # Its own class carries its own configuration (a dataclass), or is none of pydantic's business.
        return None


def _describe(option: str, value: Any, errors: list[dict]) -> Problem:
    # A union reports one error for each member: name them all, but advise from the one that knows a bound.
    errors = [e for e in errors if e["type"] != "none_required"] or errors
    reason = " or ".join(dict.fromkeys(e["msg"].replace("Input should be", "should be") for e in errors))
    for error in errors:
        bounds = error.get("ctx", {})
        near = next((bounds[k] for k in ("ge", "le") if k in bounds), None)
        if near is None and "lt" in bounds and isinstance(bounds["lt"], int) and isinstance(error["input"], int):
            near = bounds["lt"] - 1
        if error["type"] == "literal_error":
            near = nearest(
                str(error["input"]), [word.strip("'") for word in bounds["expected"].replace(" or ", ", ").split(", ")]
            )
        if near is not None:
            fixed = [near if v == error["input"] else v for v in value] if isinstance(value, list) else near
            return Problem(f"{option}={_show(value)}", reason, f"{option}={_show(fixed)}")
    return Problem(f"{option}={_show(value)}", reason)


def _show(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(_show, value)) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_requires(cfg: DictConfig) -> Iterator[Problem]:
    """Do data and model provide what model, scenario and method require?"""
    data = str(OmegaConf.select(cfg, "data._target_")).rpartition(".")[2]
    provided, accepted = provides(cfg), attribute(cfg, "method", "scenarios", ())
    for node in ("model", "scenario", "method"):
        missing = [what for what in requires(cfg, node) if what not in provided]
        if missing:
            name = str(OmegaConf.select(cfg, f"{node}._target_")).rpartition(".")[2]
            reason = f"{name} requires {' and '.join(missing)}, {data} provides {' and '.join(sorted(provided))}"

            def fits(declares: dict, node: str = node) -> bool:
                kind_fits = node != "scenario" or not accepted or declares.get("kind") in accepted
                return kind_fits and set(requirements(declares, node)) <= provided

            yield Problem(node, reason, _option(node, fits))


def _check_problem(cfg: DictConfig) -> Iterator[Problem]:
    """Is there a kind of problem that the data make and the method is about, and a network where it needs one?"""
    kinds, made = (
        attribute(cfg, "method", "problems", ("supervised",)),
        attribute(cfg, "data", "problems", ("supervised",)),
    )
    method = str(OmegaConf.select(cfg, "method._target_")).rpartition(".")[2]
    if not set(kinds) & set(made):
        reason = f"{method} is about a problem of kind {' or '.join(kinds)}, these data make one of {' or '.join(made)}"
        yield Problem("data", reason, _option("data", lambda declares: set(kinds) & set(declares.get("problems", ()))))
    network = OmegaConf.select(cfg, "model._target_") is not None
    if attribute(cfg, "method", "uses_model", True) != network:
        reason = f"{method} has no network" if network else f"{method} needs a network"
        fits = set(kinds).intersection
        near = "model=none" if network else _option("model", lambda d: fits(d.get("problems", ("supervised",))))
        yield Problem("model", reason, near)
    elif network and not set(kinds) & set(built := attribute(cfg, "model", "problems", ("supervised",))):
        reason = f"this model is for problems of kind {' or '.join(built)}, {method} is about {' or '.join(kinds)}"
        fits = set(kinds).intersection
        yield Problem("model", reason, _option("model", lambda d: fits(d.get("problems", ("supervised",)))))


def provides(cfg: DictConfig) -> set[str]:
    """What data and model offer to those that require something."""
    return {*attribute(cfg, "data", "provides", ()), *attribute(cfg, "model", "provides", ("features",))}


def requires(cfg: DictConfig, node: str) -> tuple[str, ...]:
    """What a node requires of data and model."""
    target = OmegaConf.select(cfg, f"{node}._target_")
    try:
        return requirements(declared(target).attributes, node) if target else ()
    except TargetNotFound:
        return ()


def requirements(declares: dict, node: str) -> tuple[str, ...]:
    """What the class of a node, by its literal attributes, requires of data and model."""
    # Most networks are for images, and say nothing of it.
    return declares.get("requires", ("images",) if node == "model" else ())


def _check_fit(cfg: DictConfig) -> Iterator[Problem]:
    """Does the method accept this scenario, and as many processes?"""
    accepted = attribute(cfg, "method", "scenarios", ())
    kind = attribute(cfg, "scenario", "kind", "plain")
    method = str(OmegaConf.select(cfg, "method._target_")).rpartition(".")[2]
    if accepted and kind not in accepted:
        wanted = " or ".join(accepted)
        yield Problem(
            "scenario",
            f"{method} needs a {wanted} scenario, this one is {kind}",
            _option("scenario", lambda declares: declares.get("kind") in accepted),
        )
    for option in ("devices", "num_nodes"):
        number = OmegaConf.select(cfg, f"trainer.{option}")
        if isinstance(number, int) and number > 1 and attribute(cfg, "method", "adapts_at_test", False):
            reason = f"{method} adapts to one stream in its order, which several processes would cut into shares"
            yield Problem(f"trainer.{option}={number}", reason, f"trainer.{option}=1")


def _check_evaluate(cfg: DictConfig) -> Iterator[Problem]:
    """Is there something to put in the place of the test set?"""
    if OmegaConf.select(cfg, "evaluate_on") != "validation":
        return
    if attribute(cfg, "scenario", "kind") == "domains":
        yield Problem(
            "evaluate_on=validation",
            "domains have parts of their own to select on (python -m fisherexp selection)",
            "evaluate_on=test",
        )
    elif not OmegaConf.select(cfg, "data.validation"):
        yield Problem("data.validation=0.0", "nothing is put aside to be evaluated on", "data.validation=0.1")
    if OmegaConf.select(cfg, "scenario.published"):
        yield Problem(
            f"scenario.published={cfg.scenario.published}",
            "published corruptions are of the test set",
            "scenario.published=null",
        )


def _check_source(cfg: DictConfig) -> Iterator[Problem]:
    """Is there what the source names, where the method starts with one?"""
    compared = attribute(cfg, "scenario", "references", {})
    if "source" not in {attribute(cfg, "method", "start"), *compared.values()} or "source" not in cfg:
        return
    if attribute(cfg, "source", "of_the_model") and not cfg.model.get("pretrained"):
        reason = "this model does not come with weights"
        near = "model.pretrained=true" if "pretrained" in cfg.model else "model=torchvision model.pretrained=true"
        yield Problem("source=pretrained", reason, near)
    for option in attribute(cfg, "source", "reads", {}):
        try:
            file_of_source(cfg, option)
        except FileNotFoundError as error:
            given = cfg.source[option]
            near = nearest(Path(given).name, files_nearby(cfg.data.get("root"), Path(given).suffix))
            yield Problem(f"source.{option}", f"'{given}': {error}", near and f"source.{option}={near}")


def file_of_source(cfg: DictConfig, option: str) -> Path | None:
    """The file that an option of the source stands for; None where it has no value. Raises FileNotFoundError."""
    if OmegaConf.is_missing(cfg.source, option) or not isinstance(cfg.source[option], str):
        return None
    if attribute(cfg, "source", "reads")[option] == "file":
        return user_file(cfg.source[option], cfg.data.get("root"))
    return finished_run(cfg.source[option], Path(cfg.output_dir)) / WEIGHTS


def _option(group: str, suits: Callable[[dict], bool]) -> str | None:
    """The first option of a group whose literal class attributes suit, as an override."""
    from fisherexp.config.locations import options, search_path, target

    for name, file in options(group, search_path()).items():
        if (class_name := target(file)) and suits(declared(class_name).attributes):
            return f"{group}={name}"
    return None

"""Checks a composed config against the signatures of what it instantiates; reports every problem at once."""

import dataclasses
import functools
import re
import typing
from collections.abc import Iterator
from typing import Annotated, Any

from annotated_types import Lt
from omegaconf import DictConfig, OmegaConf

from fisherexp.config import types
from fisherexp.config.declared import Declared, TargetNotFound, declared
from fisherexp.config.fit import misfits
from fisherexp.config.machine import beyond_jobs
from fisherexp.config.nodes import num_classes
from fisherexp.config.problem import Problem, nearest
from fisherexp.config.skeleton import misshapen

ROOT = "fisherexp.config.root.Root"
# Keys Hydra's instantiate reads itself.
HYDRA_KEYS = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")  # the choices of a Literal, which may be words of the file as well
OF_ITS_OWN = "is made from options of its own (a node with _target_)"
# Of every option whatever its type: no infinity, no NaN, no empty text, no text that no file could be named by.
CHECKS = {
    "strict": True,
    "arbitrary_types_allowed": True,
    "allow_inf_nan": False,
    "str_min_length": 1,
    "str_max_length": 4096,
}


def validate(cfg: DictConfig) -> list[Problem]:
    """All problems of a composed config: unknown and ill-typed options, values out of range, parts that do not fit."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    run = declared(ROOT)
    if problems := list(misshapen(plain, set(run.parameters))):
        return problems  # the rest would stumble over them
    namespace = _namespace(cfg)
    own = {key: value for key, value in plain.items() if key in run.parameters}
    problems = list(_check_options("", own, run, namespace))
    for path, target in _targets(plain):
        try:
            declaration = declared(target)
        except TargetNotFound as error:
            near = error.nearest and f"{path}._target_={error.nearest}"
            problems.append(Problem(f"{path}._target_={target}", str(error), near))
            continue
        node = OmegaConf.to_container(OmegaConf.select(cfg, path), resolve=True)
        problems += _check_options(path, node, declaration, namespace)
    return [*problems, *misfits(cfg)]


def validate_sweep(hydra: DictConfig) -> list[Problem]:
    """Problems of the node `hydra`: options of a launcher or sweeper that is ours (`options` names the class that
    declares them), and how many processes joblib is asked for."""
    problems = []
    for part in ("launcher", "sweeper"):
        node = OmegaConf.to_container(hydra[part], resolve=True)
        try:
            known = declared(node["_target_"])
        except TargetNotFound:
            continue
        if options := known.attributes.get("options"):
            listed = {**declared(options).parameters, **known.parameters}
            known = dataclasses.replace(known, parameters=listed, open=False)
        problems += _check_options(f"hydra.{part}", node, known, _names())
        if known.target.endswith("JoblibLauncher"):
            problems += beyond_jobs(node.get("n_jobs"))
    return problems


def _targets(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield path, node["_target_"]
        for key, value in node.items():
            yield from _targets(value, f"{path}.{key}" if path else key)


def _namespace(cfg: DictConfig) -> dict[str, Any]:
    """What an annotation may name. `ClassLabel` is bounded by the number of classes of the chosen data."""
    names = _names()
    classes = num_classes(cfg)
    if isinstance(classes, int) and classes > 0:
        names["ClassLabel"] = Annotated[types.ClassLabel, Lt(classes)]
    return names


def _names() -> dict[str, Any]:
    names = {k: v for k, v in vars(types).items() if not k.startswith("_")}
    return names | {
        "Literal": typing.Literal,
        "Optional": typing.Optional,
        "Union": typing.Union,
        "Any": typing.Any,
    }


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
            annotation = declaration.parameters[key]
            if declaration.classes.intersection(re.findall(r"\w+", QUOTED.sub("", annotation or ""))):
                problem = None if _is_made(value, annotation) else Problem(f"{option}={_show(value)}", OF_ITS_OWN)
            else:
                problem = _check_value(option, value, annotation, namespace)
            if problem:
                yield problem


def unchecked(cfg: DictConfig) -> list[Problem]:
    """Options whose values `validate` lets pass because their annotation says nothing that can be checked. A node that
    instantiates something is no value: its own options are checked."""
    namespace, problems = _namespace(cfg), []
    plain = OmegaConf.to_container(cfg, resolve=False)
    for path, target in _targets(plain):
        try:
            declaration = declared(target)
        except TargetNotFound:
            continue
        node = OmegaConf.to_container(OmegaConf.select(cfg, path), resolve=True)
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
        found = checker.validate_python(value)
    except ValidationError as error:
        return _describe(option, value, error.errors())
    if isinstance(value, bool) and not isinstance(found, bool):  # Literal[1, 2] takes true for 1
        return Problem(f"{option}={_show(value)}", "should be no truth value")
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
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(wanted, config=CHECKS)
    except PydanticUserError:
        # Its own class carries its own configuration (a dataclass), or is none of pydantic's business.
        return None


def _describe(option: str, value: Any, errors: list[dict]) -> Problem:
    # A union reports one error for each member: name them all, but advise from the one that knows a bound.
    errors = [e for e in errors if e["type"] != "none_required"] or errors
    reason = " or ".join(dict.fromkeys(map(_words, errors)))
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


def _words(error: dict) -> str:
    if error["type"] == "predicate_failed":
        return "should be the name of a file, which stays in the run's folder"
    return error["msg"].replace("Input should be", "should be").replace("String should have", "should have")


def _show(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(_show, value)) + "]"
    if value is None:
        return "null"
    if isinstance(value, str) and len(value) > 80:
        return f"{value[:40]}…"
    return str(value).lower() if isinstance(value, bool) else str(value)

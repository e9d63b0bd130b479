"""Checks a composed config against the signatures of what it instantiates; reports every problem at once."""

import functools
import typing
from collections.abc import Iterator
from typing import Annotated, Any

from annotated_types import Lt
from omegaconf import DictConfig, OmegaConf

from fisherexp.config import types
from fisherexp.config.declared import Declared, TargetNotFound, declared
from fisherexp.config.fit import misfits
from fisherexp.config.nodes import num_classes
from fisherexp.config.problem import Problem, nearest

ROOT = "fisherexp.config.root.Root"
# Keys Hydra's instantiate reads itself.
HYDRA_KEYS = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}


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
    return [*problems, *misfits(cfg)]


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

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
from fisherexp.config.problem import Problem, nearest, shortened
from fisherexp.config.skeleton import misshapen

ROOT = "fisherexp.config.root.Root"
# Keys Hydra's instantiate reads itself.
HYDRA_KEYS = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")  # the choices of a Literal, which may be words of the file as well
# Of types.py, in words.
PREDICATES = {
    "_each_once": "should have each only once",
    "_name_of_a_file": "should be the name of a file, which stays in the run's folder",
    "_regular_expression": "should be a regular expression",
}
# What a sweep has that chooses nothing.
SWEEP = {"launcher": "basic", "sweeper": "grid"}
# What networks, heads and loggers need beyond their nodes (shapes, folders) a run gives them.
GIVEN_BY_A_RUN = ("model", "head", "logger")
# In an annotation: the option is a function, which only a node can describe.
MADE_LATER = {"Callable"}
# More unknown options of one node than this are a wrong class, which is one problem.
SLIPS = 3
# Tensors are single precision unless told otherwise: beyond this a number is infinite to them.
LARGEST = 3.4e38
OF_ITS_OWN = "is made from options of its own (a node with _target_)"
# Of every option whatever its type: no infinity, no NaN, no blank text, no text that no file could be named by.
CHECKS = {
    "strict": True,
    "arbitrary_types_allowed": True,
    "allow_inf_nan": False,
    "str_strip_whitespace": True,
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
    own = {key: OmegaConf.select(cfg, key) for key in plain if key in run.parameters}
    own = {key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for key, value in own.items()}
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
        if path.partition(".")[0] not in GIVEN_BY_A_RUN:
            problems += _check_required(path, node, declaration, namespace)
    return [*problems, *misfits(cfg)]


def validate_sweep(hydra: DictConfig) -> list[Problem]:
    """Problems of the node `hydra`: options of a launcher or sweeper that is ours (`options` names the class that
    declares them), and how many processes joblib is asked for."""
    problems = []
    for part in ("launcher", "sweeper"):
        if OmegaConf.select(hydra, f"{part}._target_") is None:
            problems.append(Problem(f"hydra.{part}", "names no class to make it of", f"hydra/{part}={SWEEP[part]}"))
            continue
        node = OmegaConf.to_container(hydra[part], resolve=True)
        try:
            known = declared(node["_target_"])
        except TargetNotFound as error:
            near = f"hydra/{part}={SWEEP[part]}"
            problems.append(Problem(f"hydra.{part}._target_={node['_target_']}", str(error), near))
            continue
        if options := known.attributes.get("options"):
            try:
                listed = {**declared(options).parameters, **known.parameters}
            except TargetNotFound:  # Optuna is not installed: the sweeper says how to
                continue
            known = dataclasses.replace(known, parameters=listed, open=False)
        problems += _check_options(f"hydra.{part}", node, known, _names())
        if known.target.endswith("JoblibLauncher"):
            problems += beyond_jobs(node.get("n_jobs"))
            if (backend := node.get("backend")) not in (None, "loky"):
                reason = "Hydra's joblib launcher always takes loky"
                problems.append(Problem(f"hydra.launcher.backend={backend}", reason, "hydra.launcher.backend=loky"))
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
    yield from _check_names(path, node, declaration)
    for key, value in node.items():
        option = f"{path}.{key}" if path else key
        if key in HYDRA_KEYS or key not in declaration.parameters:
            continue
        if value == "???":
            yield Problem(option, "needs a value")
        else:
            annotation = declaration.parameters[key]
            if (declaration.classes | MADE_LATER).intersection(re.findall(r"\w+", QUOTED.sub("", annotation or ""))):
                problem = None if _is_made(value, annotation) else Problem(f"{option}={_show(value)}", OF_ITS_OWN)
            else:
                problem = _check_value(option, value, annotation, namespace)
            if problem:
                yield problem


def _check_names(path: str, node: dict, declaration: Declared) -> Iterator[Problem]:
    unknown = [] if declaration.open else [key for key in node if key not in {*declaration.parameters, *HYDRA_KEYS}]
    name = declaration.target.rpartition(".")[2]
    if len(unknown) > SLIPS:
        reason = f"{name} has no options {', '.join(unknown)}; is it the class that is meant?"
        yield Problem(f"{path}._target_={declaration.target}", reason)
        return
    for key in unknown:
        near = nearest(key, declaration.parameters)
        option, advice = (f"{path}.{text}".lstrip(".") if text else None for text in (key, near))
        yield Problem(option, f"{name} has no such option", advice)


def _check_required(path: str, node: dict, declaration: Declared, namespace: dict) -> Iterator[Problem]:
    """Options without a default that a node leaves out; what has a type of its own (`model: nn.Module`) a run gives."""
    for key in sorted(declaration.required - node.keys()):
        if _checker(declaration.parameters.get(key), namespace) is not None:
            yield Problem(f"{path}.{key}", f"{declaration.target.rpartition('.')[2]} needs a value of it")


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
    checker = None if annotation is None else _checker(annotation, namespace)
    if checker is None:  # a type from some other package, say: its constructor will check
        return None

    from pydantic import ValidationError

    try:
        found = checker.validate_python(value)
    except ValidationError as error:
        return _describe(option, value, error.errors())
    if any(abs(number) > LARGEST for number in _floats(value)):
        return Problem(f"{option}={_show(value)}", f"should be at most {LARGEST:g}; beyond, tensors hold infinity")
    if isinstance(value, bool) and not isinstance(found, bool):  # Literal[1, 2] takes true for 1
        return Problem(f"{option}={_show(value)}", "should be no truth value")
    return None


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _floats(item)


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
            fixed = _replaced(value, error["input"], near) if isinstance(value, list) else near
            return Problem(f"{option}={_show(value)}", reason, f"{option}={_show(fixed)}")
    return Problem(f"{option}={_show(value)}", reason)


def _replaced(items: list, wrong: Any, near: Any) -> list:
    """The items, lists in them included, with `near` for what is wrong."""
    return [_replaced(v, wrong, near) if isinstance(v, list) else near if v == wrong else v for v in items]


def _words(error: dict) -> str:
    if error["type"] == "predicate_failed":
        return next(words for name, words in PREDICATES.items() if name in error["msg"])
    said = re.sub(r"^(Input|String|List) should", "should", error["msg"])
    return said.partition(" after validation")[0]


def _show(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(_show, value)) + "]"
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return shortened(text)

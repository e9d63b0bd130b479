"""Whether a composed config has the nodes that every run has, and no others."""

from collections.abc import Iterator
from typing import Any

from fisherexp.config.companions import standard
from fisherexp.config.locations import groups, options, search_path
from fisherexp.config.problem import Problem, nearest

# Nodes that instantiate something, and the group whose file describes them.
MADE = {group: group for group in ("method", "data", "scenario", "trainer", "source", "training")} | {
    "oracle": "method"
}
# Nodes that may describe nothing: `model=none`, `audit=none`, a list of loggers or callbacks.
MAYBE = ("model", "head", "audit", "logger", "callbacks")
# Groups whose files set options of the whole run.
GLOBAL = ("experiment", "local")


def misshapen(plain: dict[str, Any], options_of_run: set[str]) -> Iterator[Problem]:
    """plain: the config as containers. options_of_run: names at the root that are no nodes."""
    for node in (*MADE, *MAYBE):
        if not isinstance(found := plain.get(node), dict):
            yield Problem(node, "a run needs one" if found is None else "is no node of options", instead(node))
        elif node in MADE and not isinstance(found.get("_target_"), str):
            yield Problem(node, "names no class to make it of (_target_); is its file empty?", instead(node))
    for node in ("logger", "callbacks"):
        for name, found in (plain.get(node) or {}).items() if isinstance(plain.get(node), dict) else ():
            if found is not None and not (isinstance(found, dict) and isinstance(found.get("_target_"), str)):
                yield Problem(f"{node}.{name}", "names no class to make it of (_target_)", f"~{node}.{name}")
    for option in sorted(options_of_run - plain.keys()):
        yield Problem(option, "a run needs a value of it")
    nodes = {*MADE, *MAYBE}
    for name, found in plain.items():
        if name in nodes | options_of_run:
            continue
        if name in GLOBAL:
            reason = "its options are put below its own name, where nothing reads them"
            yield Problem(name, reason, "'# @package _global_' as the first line of its file")
        elif not isinstance(found, dict | list) or not (name in groups(search_path()) or _makes_something(found)):
            near = nearest(name, nodes | options_of_run)
            yield Problem(name, "there is no such option", near)


def instead(group: str) -> str:
    """The choice for who wants nothing of a group, else the one that a run has that chooses nothing."""
    if group == "oracle":
        return f"method@oracle={standard()['method@oracle']}"
    if group in ("callbacks", "logger"):
        return f"{group}=[]"
    return f"{group}={'none' if 'none' in options(group, search_path()) else standard().get(group)}"


def _makes_something(node: Any) -> bool:
    if isinstance(node, dict):
        return "_target_" in node or any(map(_makes_something, node.values()))
    return isinstance(node, list) and any(map(_makes_something, node))

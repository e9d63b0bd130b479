"""What the nodes of a composed config declare, each by the class that it would instantiate."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fisherexp.config.declared import TargetNotFound, declared
from fisherexp.config.locations import WEIGHTS, finished_run, user_file


def attribute(cfg: DictConfig, node: str, name: str, default: Any = None) -> Any:
    """A literal class attribute of what `node` would instantiate."""
    target = OmegaConf.select(cfg, f"{node}._target_")
    try:
        return declared(target).attributes.get(name, default) if target else default
    except TargetNotFound:
        return default


def _declared(node: str, name: str, default: Any, *, _root_: DictConfig) -> Any:
    return attribute(_root_, node, name, default)


# An option's default that another node decides: `task: ${declared:data,model_task,classification}`.
OmegaConf.register_new_resolver("declared", _declared, replace=True)


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


def lacking(required: Iterable[str], provided: Collection[str]) -> list[str]:
    """What is required and not provided. 'class_labels or next_tokens' asks for one of the two."""
    return [what for what in required if not any(one in provided for one in what.split(" or "))]


def num_classes(cfg: DictConfig) -> int | None:
    """Number of classes the data declares (or the user gives as `data.num_classes`, or chooses as `data.classes`); None
    where only the files tell."""
    if chosen := OmegaConf.select(cfg, "data.classes"):
        return len(chosen)
    given = OmegaConf.select(cfg, "data.num_classes")
    return given if isinstance(given, int) else attribute(cfg, "data", "num_classes")


def names_a_file(weights: object) -> bool:
    """Does `model.weights` stand for a file? Names that a library has for its weights have no ending."""
    return isinstance(weights, str) and bool(Path(weights).suffix)


def comes_with_weights(cfg: DictConfig) -> bool:
    """Does the model begin with weights of its own?"""
    return bool(cfg.model.get("pretrained")) or names_a_file(cfg.model.get("weights"))


def file_of_source(cfg: DictConfig, option: str) -> Path | None:
    """The file that an option of the source stands for; None where it has no value. Raises FileNotFoundError."""
    if OmegaConf.is_missing(cfg.source, option) or not isinstance(cfg.source[option], str):
        return None
    if attribute(cfg, "source", "reads")[option] == "file":
        return user_file(cfg.source[option], cfg.data.get("root"))
    return finished_run(cfg.source[option], Path(cfg.output_dir)) / WEIGHTS

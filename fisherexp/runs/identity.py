"""The name of a run: a hash of the resolved config that can change its result.

Two command lines that ask for the same experiment get the same name and hence the same folder; a logger,
a progress bar or the place where files lie change nothing. Light: no torch.
"""

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fisherexp.config.declared import TargetNotFound, declared
from fisherexp.config.locations import data_folder, located
from fisherexp.config.nodes import attribute, file_of_source, lacking, provides
from fisherexp.content import content

# What cannot change a result (threads change the last bits of a float sum; they are recorded; a draw is in the values
# that were drawn).
COSMETIC = {"draw", "logger", "threads", "output_dir", "rerun", "on_error", "progress", "checkpoint_every", "training"}
COSMETIC_IN = {
    "data": {"root", "download"},
    "model": {"gradient_checkpointing"},
    "trainer": {"accelerator", "strategy", "profiler", "detect_anomaly"},
}


def semantic(cfg: DictConfig) -> dict[str, Any]:
    """The part of the resolved config that decides the result, as plain containers."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    kept = {k: v for k, v in plain.items() if k not in COSMETIC}
    for group, cosmetic in COSMETIC_IN.items():
        kept[group] = {k: v for k, v in kept[group].items() if k not in cosmetic}
    unused = {"source", "oracle"} - references(cfg)
    unused |= set() if is_audited(cfg) else {"audit"}
    unused |= set() if _has_head(cfg) else {"head"}
    kept = {k: v for k, v in kept.items() if k not in unused}
    if "source" in kept:
        kept["source"] |= _read_by_source(cfg)
    if kept["evaluate_on"] == "test":  # the rule, and older than the option
        del kept["evaluate_on"]
    if kept["scenario"].get("published") == "auto":
        kept["scenario"]["published"] = _found(cfg)
    return _with_contents(kept, cfg.data.get("root"))


def references(cfg: DictConfig) -> set[str]:
    """The reference models a run works with: the one its method starts from and those its scenario compares with."""
    start = attribute(cfg, "method", "start", "scratch")
    compared = attribute(cfg, "scenario", "references", {}) if attribute(cfg, "method", "uses_model", True) else {}
    return {*compared.values(), *([start] if start != "scratch" else [])}


def is_audited(cfg: DictConfig) -> bool:
    """Does the config's audit look at scenarios like this one?"""
    known = not lacking(attribute(cfg, "audit", "requires", ()), provides(cfg))
    return known and attribute(cfg, "scenario", "kind", "plain") in attribute(cfg, "audit", "scenarios", ())


def _has_head(cfg: DictConfig) -> bool:
    """Does the config's network get a last layer from `head`?"""
    return cfg.model.get("_target_") is not None and "supervised" in attribute(
        cfg, "model", "problems", ("supervised",)
    )


def digest(parts: Any, length: int = 12) -> str:
    """Hexadecimal hash of plain containers, the same on every machine."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def identity(cfg: DictConfig) -> str:
    """Twelve hexadecimal digits naming the run."""
    return digest(semantic(cfg))


def family(cfg: DictConfig) -> str:
    """The name that runs share which differ in nothing but their seed, e.g. `ssd-digits-1f2e3d`."""
    shared = {key: value for key, value in semantic(cfg).items() if key != "seed"}
    return f"{name_of(cfg, 'method')}-{name_of(cfg, 'data')}-{digest(shared, length=6)}"


def run_folder(cfg: DictConfig) -> Path:
    """`<output_dir>/<method>/<data>/<identity>`."""
    return Path(cfg.output_dir) / name_of(cfg, "method") / name_of(cfg, "data") / identity(cfg)


def name_of(cfg: DictConfig, node: str) -> str:
    """The short name of what a node instantiates: the value of the option it is declared to be `named_by`, its declared
    `name`, else its class in snake case."""
    target = OmegaConf.select(cfg, f"{node}._target_")
    if target is None:
        return "none"
    if option := attribute(cfg, node, "named_by"):
        return str(cfg[node][option]).replace("/", "_")  # it names a folder, too
    words = re.findall(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z0-9]+", target.rpartition(".")[2])
    return attribute(cfg, node, "name") or "_".join(words).lower()


def _read_by_source(cfg: DictConfig) -> dict[str, str]:
    """Option -> hash of the file it stands for: the same weights elsewhere are the same source, others are another."""
    found = {}
    for option in attribute(cfg, "source", "reads", {}):
        with contextlib.suppress(FileNotFoundError):  # a config that is refused has a name, too
            if file := file_of_source(cfg, option):
                found[option] = content(file)
    return found


def _found(cfg: DictConfig) -> str | None:
    # Published test images are taken where they lie in the data folder: putting them there is another experiment.
    name = attribute(cfg, "data", "published_corruptions")
    return name if name and (data_folder(cfg.data.get("root")) / name).is_dir() else None


def _with_contents(node: Any, root: str | None) -> Any:
    """Nested containers in which every file or folder that an option names, alone or in a list, stands as its name and
    a hash of its content: where it lies plays no part, and changed under the same name it is another experiment.

    Which options these are, a class declares by `paths` (where it says nothing, 'path' is one), and by `files` what it
    reads from the data folder under a fixed name.
    """
    if not isinstance(node, dict):
        return node
    found = {key: _with_contents(value, root) for key, value in node.items()}
    if isinstance(target := node.get("_target_"), str):
        declares = _attributes(target)
        for option in declares.get("paths", ("path",)):
            given = node.get(option)
            if isinstance(given, str) and (place := located(given, root)):
                found[option] = [place.name, content(place)]
            elif isinstance(given, list):
                places = [(path, located(path, root) if isinstance(path, str) else None) for path in given]
                found[option] = [[place.name, content(place)] if place else path for path, place in places]
        if read := [name for name in declares.get("files", ()) if (data_folder(root) / name).exists()]:
            found["files"] = [[name, content(data_folder(root) / name)] for name in read]
    return found


def _attributes(target: str) -> dict[str, Any]:
    try:
        return declared(target).attributes
    except TargetNotFound:
        return {}

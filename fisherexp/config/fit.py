"""Do the parts of a config fit together: data, model, scenario, method, source and trainer?"""

import json
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fisherexp.config.declared import declared
from fisherexp.config.locations import PACKAGED, files_nearby, located, options, search_path, target
from fisherexp.config.nodes import (
    attribute,
    comes_with_weights,
    file_of_source,
    lacking,
    names_a_file,
    provides,
    requirements,
    requires,
)
from fisherexp.config.problem import Problem, nearest, shortened

NOT_INSTALLED = "this is not installed"  # a package that weights come with, or that a method is written on


def misfits(cfg: DictConfig) -> Iterator[Problem]:
    """Every pair of parts that does not fit, with the first option that would."""
    checks = (_check_problem, _check_requires, _check_requires_with, _check_fit, _check_shares, _check_evaluate)
    of_sources = (_check_source, _check_audit, _check_source_data, _check_weights, _check_package, _check_tokenizer)
    for check in (*checks, *of_sources):
        yield from check(cfg)


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


def _check_requires(cfg: DictConfig) -> Iterator[Problem]:
    """Do data and model provide what model, scenario, method and callbacks require?"""
    data = str(OmegaConf.select(cfg, "data._target_")).rpartition(".")[2]
    provided, accepted = provides(cfg), attribute(cfg, "method", "scenarios", ())
    for node in ("model", "scenario", "method"):
        if missing := lacking(requires(cfg, node), provided):
            name = str(OmegaConf.select(cfg, f"{node}._target_")).rpartition(".")[2]
            reason = f"{name} requires {' and '.join(missing)}, {data} provides {' and '.join(sorted(provided))}"

            def fits(declares: dict, node: str = node) -> bool:
                kind_fits = node != "scenario" or not accepted or declares.get("kind") in accepted
                return kind_fits and not lacking(requirements(declares, node), provided)

            yield Problem(node, reason, _option(node, fits))
    if lacking(requires(cfg, "method"), provided):
        return  # a method brings callbacks that require what it does
    for name in (callbacks := OmegaConf.select(cfg, "callbacks") or {}):
        if missing := lacking(requires(cfg, f"callbacks.{name}"), provided):
            reason = f"requires {' and '.join(missing)}, {data} provides {' and '.join(sorted(provided))}"
            others = [str(other) for other in callbacks if other != name]
            yield Problem(f"callbacks.{name}", reason, f"callbacks=[{','.join(others)}]")


def _check_requires_with(cfg: DictConfig) -> Iterator[Problem]:
    """Do the data provide what the model requires with the values of its options?"""
    provided = provides(cfg)
    if not set(requires(cfg, "model")) <= provided:
        return
    for option, required in attribute(cfg, "model", "requires_with", {}).items():
        value = OmegaConf.select(cfg, f"model.{option}")
        if missing := [what for what in required.get(value, ()) if what not in provided]:
            data = str(OmegaConf.select(cfg, "data._target_")).rpartition(".")[2]
            near = next((other for other, what in required.items() if set(what) <= provided), None)
            reason = f"requires {' and '.join(missing)}, {data} provides {' and '.join(sorted(provided))}"
            yield Problem(f"model.{option}={value}", reason, near and f"model.{option}={near}")


def _check_fit(cfg: DictConfig) -> Iterator[Problem]:
    """Does the method accept this scenario, as many processes, and what the trainer does to its gradients?"""
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
    for option, idle in (("accumulate_grad_batches", 1), ("gradient_clip_val", None)):
        value = OmegaConf.select(cfg, f"trainer.{option}", default=idle)
        if value != idle and attribute(cfg, "method", "steps_itself", False):
            reason = f"{method} goes from batch to batch in a way of its own, without the trainer's optimizer step"
            near = f"trainer.{option}={'null' if idle is None else idle}"
            yield Problem(f"trainer.{option}={value}", reason, near)


def _check_shares(cfg: DictConfig) -> Iterator[Problem]:
    """Can weights be cut into shares: by method, callbacks, precision and number of processes?"""
    if OmegaConf.select(cfg, "trainer.strategy") != "fsdp":
        return
    option, near = "trainer.strategy=fsdp", "trainer.strategy=ddp"
    path = str(OmegaConf.select(cfg, "method._target_"))
    method = path.rpartition(".")[2]
    if not attribute(cfg, "method", "shards", False) or "shards" not in declared(path).own:
        yield Problem(option, f"{method} needs whole weights, plain training alone (method=erm) does not", near)
    for name in cfg.callbacks:
        watches = attribute(cfg, f"callbacks.{name}", "watches_fit", False)
        if watches or OmegaConf.select(cfg, f"callbacks.{name}.during") == "fit":
            yield Problem(option, f"callbacks.{name} looks at whole weights during training", near)
    if (precision := cfg.trainer.precision) not in ("32-true", "bf16-mixed"):
        yield Problem(f"trainer.precision={precision}", f"not with {option}", "trainer.precision=bf16-mixed")
    if not isinstance(cfg.trainer.devices, int):
        yield Problem("trainer.devices=auto", f"{option} has a share for each process", "trainer.devices=2")


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
    elif not (OmegaConf.select(cfg, "data.validation") or OmegaConf.select(cfg, "data.validation_path")):
        yield Problem("data.validation=0.0", "nothing is put aside to be evaluated on", "data.validation=0.1")
    if OmegaConf.select(cfg, "scenario.published"):
        yield Problem(
            f"scenario.published={cfg.scenario.published}",
            "published corruptions are of the test set",
            "scenario.published=null",
        )


def _check_audit(cfg: DictConfig) -> Iterator[Problem]:
    """Does the method start with a source that is trained on data of its own, where the audit asks for these?"""
    looks = attribute(cfg, "scenario", "kind", "plain") in attribute(cfg, "audit", "scenarios", ())
    if not looks or not attribute(cfg, "audit", "of_source_data", False):
        return
    name = str(OmegaConf.select(cfg, "audit._target_")).rpartition(".")[2]
    if attribute(cfg, "method", "start") != "source":
        yield Problem("audit", f"{name} asks what is kept of a source, and this method starts with none", "audit=none")
    elif OmegaConf.select(cfg, "source.data") is None:
        yield Problem("audit", f"{name} needs a source trained on data of its own: source.data", "source=digits_odd")
    elif OmegaConf.select(cfg, "evaluate_on") == "validation" and not OmegaConf.select(cfg, "source.data.validation"):
        yield Problem(
            "audit", f"{name} evaluates on validation, of which the source's data put none aside", "audit=none"
        )


def _check_source_data(cfg: DictConfig) -> Iterator[Problem]:
    """Is there a source with data of its own, where the method asks for these?"""
    if attribute(cfg, "method", "of_source_data", False) and OmegaConf.select(cfg, "source.data") is None:
        name = str(OmegaConf.select(cfg, "method._target_")).rpartition(".")[2]
        yield Problem("method", f"{name} needs a source trained on data of its own: source.data", "source=digits_odd")


def _check_source(cfg: DictConfig) -> Iterator[Problem]:
    """Is there what the source names, where the method starts with one?"""
    compared = attribute(cfg, "scenario", "references", {})
    if "source" not in {attribute(cfg, "method", "start"), *compared.values()} or "source" not in cfg:
        return
    if attribute(cfg, "source", "of_the_model") and not comes_with_weights(cfg):
        reason = "this model does not come with weights"
        near = "model.pretrained=true" if "pretrained" in cfg.model else "model=torchvision model.pretrained=true"
        words = re.findall("[A-Z][a-z]*", str(cfg.source._target_).rpartition(".")[2])
        yield Problem(f"source={'_'.join(words).lower()}", reason, near)
    for option in attribute(cfg, "source", "reads", {}):
        try:
            file_of_source(cfg, option)
        except FileNotFoundError as error:
            given = cfg.source[option]
            near = nearest(Path(given).name, files_nearby(cfg.data.get("root"), Path(given).suffix))
            yield Problem(f"source.{option}", f"'{shortened(given)}': {error}", near and f"source.{option}={near}")


def _check_weights(cfg: DictConfig) -> Iterator[Problem]:
    """Is there the file of weights that a model is to begin with?"""
    if not names_a_file(given := cfg.model.get("weights")) or "weights" not in attribute(cfg, "model", "paths", ()):
        return
    if (file := located(given, None)) is not None and file.is_file():
        return
    if given.startswith(PACKAGED):
        package = given.removeprefix(PACKAGED).partition("/")[0]
        yield Problem(f"model.weights={shortened(given)}", f"{NOT_INSTALLED}: pip install {package}")
        return
    near = nearest(Path(given).name, files_nearby(None, Path(given).suffix))
    reason = "there is no such file in the working directory or the data folder"
    yield Problem(f"model.weights={shortened(given)}", reason, near and f"model.weights={near}")


def _check_package(cfg: DictConfig) -> Iterator[Problem]:
    """Is the package installed that the method is written on?"""
    package = attribute(cfg, "method", "package", None)
    if package and find_spec(package) is None:
        yield Problem("method", f"{NOT_INSTALLED}: pip install 'fisherexp[{package}]'")


def _check_tokenizer(cfg: DictConfig) -> Iterator[Problem]:
    """Has the model tokens of its own where the data are given those of another? Its embedding may well have a row for
    each of them, the wrong one. Seen where both are folders."""
    given, model = (OmegaConf.select(cfg, f"{node}.name") for node in ("data.tokenizer", "model"))
    if not given or not model or given == model:
        return
    own, others = (_vocabulary(located(str(name), None)) for name in (model, given))
    if own and others and own != others:
        reason = f"its tokens are others than those that model.name={shortened(model)} was made for"
        yield Problem(f"data.tokenizer.name={shortened(given)}", reason, f"data.tokenizer.name={model}")


def _vocabulary(folder: Path | None) -> Any:
    """What tokens a folder's tokenizer.json has, and their numbers; None without one that can be read."""
    try:
        found = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        return found["model"]["vocab"], [(token["id"], token["content"]) for token in found.get("added_tokens", ())]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _option(group: str, suits: Callable[[dict], bool]) -> str | None:
    """The first option of a group whose literal class attributes suit, as an override."""
    for name, file in options(group, search_path()).items():
        if (class_name := target(file)) and suits(declared(class_name).attributes):
            return f"{group}={name}"
    return None

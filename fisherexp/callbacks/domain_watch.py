"""What the head sees of the domains while it is trained, beside the accuracy on each: numbers, curves, a scatter.

Per checkpoint: accuracy on every evaluated part; gradient norms of the head by domain; exact ||H_e - H_f||_F and
||H_e - H_f||_2 of the head's Hessians, between training domains and between each of them and the target; the transfer
measure to the target with the bound that its Hessian distance gives (see transfer.py).
"""

from itertools import combinations, islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from fisherexp.callbacks.domain_figure import draw
from fisherexp.callbacks.transfer import transfer_measure
from fisherexp.callbacks.watcher import Watcher
from fisherexp.config.types import Count, Positive
from fisherexp.curvature.head_gradients import head_gradient_mean
from fisherexp.curvature.head_hessian import frobenius_distance, spectral_distance
from fisherexp.methods.domain_generalization.base import DomainMethod
from fisherexp.metrics.over_batches import evaluated, gathered
from fisherexp.models.eval_mode import eval_mode
from fisherexp.seeds import generator


class DomainWatch(Watcher):
    """Records a checkpoint every `every` epochs and after the last; the records are the outcome 'domain_watch' of the
    run, and domain_watch.png and .pdf are drawn from them.

    samples: of each domain, at most, for all but the accuracies. delta: radius of the transfer measure's ball of
    heads. geometry: false for accuracies only, which is all that model selection needs.
    """

    watches_fit = True

    def __init__(self, every: Count = 10, samples: Count = 500, delta: Positive = 0.1, geometry: bool = True) -> None:
        self.every, self.samples, self.delta, self.geometry = every, samples, delta, geometry
        self.records: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        if not isinstance(module, DomainMethod):
            raise ValueError(
                f"domain_watch follows methods that train on several domains; {type(module).__name__} "
                "knows one (nearest: method=domain_erm)"
            )

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every and epoch != trainer.max_epochs:
            return
        with torch.no_grad(), eval_mode(module.model):
            record = {"step": trainer.global_step} | self._accuracies(trainer, module)
            if self.geometry:
                record |= self._geometry(module)
        self.records.append(record)

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        module.outcome["domain_watch"] = self.records

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        records = module.outcome.get("domain_watch", [])
        if trainer.is_global_zero and records and self.geometry:
            draw(records, Path(trainer.default_root_dir) / "domain_watch")

    def state_dict(self) -> dict[str, Any]:
        return {"records": self.records}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.records = state["records"]

    def _accuracies(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        setting, model = module.setting, module.model
        # A trial that tests on a few batches looks at as few here.
        limit = trainer.limit_test_batches if isinstance(trainer.limit_test_batches, int) else None
        loaders = (setting.loader(part, rank=0, world_size=1) for part in setting.evaluated)
        parts = (islice(loader, limit) for loader in loaders)
        return evaluated(model.forward, parts, setting.evaluation().to(module.device))

    def _geometry(self, module: LightningModule) -> dict[str, Any]:
        model = module.model
        found = {
            name.removeprefix("train_"): self._seen(module, name)
            for name in module.setting.evaluated
            if name.startswith("train_") or name == "target"
        }
        return geometry(found, torch.cat([model.head.weight, model.head.bias[:, None]], dim=1), self.delta)

    def _seen(self, module: LightningModule, part: str) -> tuple[Tensor, Tensor, Tensor]:
        images = module.setting.parts[part]
        order = torch.randperm(len(images), generator=generator("watched", part))[: self.samples]
        loader = module.setting.loader_of(images.subset(order.sort().values), shuffle=False, rank=0, world_size=1)
        features, labels = gathered(module.model.features, loader)
        return features, module.model.head(features), labels


def geometry(domains: dict[str, tuple[Tensor, Tensor, Tensor]], head: Tensor, delta: float) -> dict[str, Any]:
    """The figures of one checkpoint.

    domains: (features, logits, labels) by name, 'target' among them. head: (C, d + 1), bias last. delta: see above.
    Returns gradient_norm by domain; frobenius and spectral by pair 'e|f'; transfer, the measure from the pooled
    training domains to the target, and transfer_bound, δ ||g_T - g_S|| + δ²/2 ||H_T - H_S||_2 to second order;
    means of frobenius and spectral over pairs of training domains, and over pairs with the target.
    """
    kind = "binary" if head.shape[0] == 1 else "softmax"
    gradients = {name: head_gradient_mean(*samples, head=kind) for name, samples in domains.items()}
    training = [name for name in domains if name != "target"]
    source = tuple(torch.cat([domains[name][i] for name in training]) for i in range(3))
    target = domains["target"]

    def distances(one: tuple, other: tuple) -> tuple[float, float]:
        options = {"head": kind, "generator": generator("lanczos")}
        spectral = spectral_distance(one[:2], other[:2], **options)
        return frobenius_distance(one[:2], other[:2], head=kind).item(), spectral.item()

    pairs = {f"{e}|{f}": distances(domains[e], domains[f]) for e, f in combinations(domains, 2)}
    found: dict[str, Any] = {"gradient_norm": {name: g.norm().item() for name, g in gradients.items()}}
    for i, norm in enumerate(("frobenius", "spectral")):
        found[norm] = {pair: values[i] for pair, values in pairs.items()}
        with_target = [value for pair, value in found[norm].items() if "target" in pair.split("|")]
        others = [value for pair, value in found[norm].items() if "target" not in pair.split("|")]
        found[f"{norm}_training"] = fmean(others) if others else 0.0
        found[f"{norm}_target"] = fmean(with_target)
    found["transfer"] = transfer_measure(source[::2], target[::2], head, delta)
    slope = gradients["target"] - head_gradient_mean(*source, head=kind)
    found["transfer_bound"] = delta * slope.norm().item() + delta**2 / 2 * distances(source, target)[1]
    return found

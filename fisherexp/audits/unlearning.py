"""Compares an unlearned model with its source, with retrained oracles, an untrained network and shadow models."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from fisherexp.audits.relearn import Relearn, probe
from fisherexp.audits.shadows import Game, shadow_confidence
from fisherexp.config.types import AtLeastOne, Count, NonNegative, Probability, Size
from fisherexp.methods.method import ModelMethod
from fisherexp.metrics.band import deviation_of, gaps, mean_of
from fisherexp.metrics.divergence import jensen_shannon, softmax_distance, weight_distance, zrf, zrf_official
from fisherexp.metrics.likelihood_ratio import log_likelihood_ratio, operating_points, resolved
from fisherexp.runs.artefact import weights_digest
from fisherexp.runs.workbench import Workbench
from fisherexp.seeds import derive

log = logging.getLogger(__name__)

# Figures that describe the measurement, not the model: no gap is formed of them.
CIRCUMSTANCES = ("relearn_capped", "lira_smallest_fpr")


@dataclass(frozen=True)
class Subject:
    """A model under examination. weights, metrics: of its test loop; predictions: logits (n, C) by evaluated part."""

    weights: Mapping[str, Tensor]
    predictions: Mapping[str, Tensor]
    metrics: Mapping[str, float]


class UnlearningAudit:
    """What it finds, by stage ('before', 'after', 'oracle'); figures in % unless said otherwise.

    zrf, zrf_official: see divergence.py; on test samples of what is forgotten, or on forgotten training samples.
    oracle_js_<part>, oracle_l2_<part>: mean Jensen-Shannon divergence (nats) and softmax distance to the oracle's
        predictions on 'forget' and 'retain' (training samples); with several oracles the mean over them, and for the
        oracles themselves the mean over pairs. oracle_weights, source_weights: ‖θ - θ'‖₂ to these models.
    <metric>_gap, <metric>_in_band ('after'): see band.py.
    relearn_steps: optimizer steps on the forget set until the loss is back; relearn_capped: 1 where it was not back
        after `relearn_cap` steps, which is then the figure.
    lira_…: see likelihood_ratio.py for the figures and shadows.py for the game.

    oracles: retrained models, the first with the run's seed, others with seeds derived from it. With more than one,
        'oracle' is their mean and 'oracle_deviation' their standard deviation.
    relearn_cap: steps after which relearning gives up; 0: not measured. relearn_tolerance: nats above the source
        model's loss that count as back. The optimizer is that of the source's recipe at its peak learning rate.
    shadows: number of shadow models, of which one half sees a sample; 0: no likelihood-ratio attack.
    false_positive_rates: at which the attack's true positive rate is reported, if there are negatives enough.
    """

    scenarios = ("forgetting",)
    requires = ("class_labels",)
    headings = {"oracle_js_forget": "JS to\noracle", "lira_balanced_accuracy": "LiRA bal.\nacc. %"}
    better = {"oracle_js_forget": "lower"}

    def __init__(
        self,
        oracles: Count = 1,
        relearn_cap: Size = 0,
        relearn_tolerance: NonNegative = 0.05,
        shadows: Literal[0, 4, 8, 16, 32, 64, 128, 256] = 0,
        population: Literal["online", "unlearned"] = "online",
        variance: Literal["shared", "per_sample"] = "shared",
        false_positive_rates: AtLeastOne[Probability] | None = None,
    ) -> None:
        self.oracles, self.shadows = oracles, shadows
        self.relearn_cap, self.relearn_tolerance = relearn_cap, relearn_tolerance
        self.population, self.variance = population, variance
        self.false_positive_rates = false_positive_rates or []

    def examine(self, bench: Workbench, method: ModelMethod) -> dict[str, dict[str, float]]:
        """Further metrics by stage. `method` has been through its test loop."""
        return Examination(self, bench, method).findings()


class Examination:
    """One audit of one run."""

    def __init__(self, audit: UnlearningAudit, bench: Workbench, method: ModelMethod) -> None:
        self.audit, self.bench = audit, bench
        self.parameters = [name for name, _ in method.model.named_parameters()]
        weights = {name: tensor.detach().cpu() for name, tensor in method.model.state_dict().items()}
        metrics = {name: float(value) for name, value in method.evaluation.compute().items()}
        self.after = Subject(weights, method.evaluation.predictions(), metrics)

    def findings(self) -> dict[str, dict[str, float]]:
        """Metrics by stage."""
        before, after = self.alone(self.before), self.alone(self.after)
        oracles = [self.alone(oracle) for oracle in self.oracles]
        compared = [{k: v for k, v in oracle.items() if k not in CIRCUMSTANCES} for oracle in oracles]
        found = {
            "before": before | self.to_oracles(self.before),
            "after": after | self.to_oracles(self.after) | self.to_source(self.after) | gaps(after, compared),
            "oracle": mean_of(oracles) | self.among_oracles() | mean_of([*map(self.to_source, self.oracles)]),
        }
        return found | ({"oracle_deviation": deviation_of(compared)} if len(oracles) > 1 else {})

    # --- the models ------------------------------------------------------------------------------------

    @cached_property
    def before(self) -> Subject:
        return self._trained(self.bench, "before")

    @cached_property
    def oracles(self) -> list[Subject]:
        """Retrained models that differ in nothing but their seed."""
        names = [f"oracle {number + 1}/{self.audit.oracles}" for number in range(self.audit.oracles)]
        others = [self.bench.variation(n, derive("oracle", self.bench.seed, i + 1)) for i, n in enumerate(names[1:])]
        return [self._trained(bench, "oracle") for bench in (self.bench, *others)]

    @cached_property
    def untrained(self) -> Mapping[str, Tensor]:
        """Predictions of a network with random weights."""
        bench, model = self.bench, self.bench.classifier("untrained")
        code = bench.code_of(f"{__name__}.Examination.untrained")
        described = OmegaConf.to_container(bench.cfg.model, resolve=True)
        key = {"untrained": described, "seed": bench.seed, "code": code}
        return bench.evaluation("untrained network", key, lambda scratch: model.state_dict()).tensors

    def _trained(self, bench: Workbench, stage: str) -> Subject:
        name = self.bench.references[stage]
        weights = bench.reference(name)
        evaluation = self.bench.evaluation(name, weights.key, lambda scratch: weights.tensors)
        return Subject(weights.tensors, evaluation.tensors, evaluation.about["metrics"])

    # --- what is found ---------------------------------------------------------------------------------

    def alone(self, model: Subject) -> dict[str, float]:
        """Figures of one model: of its test loop, ZRF, and what was asked for of relearning and LiRA."""
        part = "test_forget" if "test_forget" in model.predictions else "forget"
        pair = model.predictions[part], self.untrained[part]
        found = {**model.metrics, "zrf": zrf(*pair), "zrf_official": zrf_official(*pair)}
        if self.audit.relearn_cap and model is not self.before:
            found |= self.relearned(model)
        if self.audit.shadows:
            found |= self.attacked(model)
        return found

    def to_oracles(self, model: Subject) -> dict[str, float]:
        """Mean distances to the oracles."""
        return mean_of([self._distances(model, oracle) for oracle in self.oracles])

    def among_oracles(self) -> dict[str, float]:
        """Mean distances of pairs of oracles; nothing for a single one."""
        pairs = [self._distances(*pair) for pair in combinations(self.oracles, 2)]
        return mean_of(pairs) if pairs else {}

    def to_source(self, model: Subject) -> dict[str, float]:
        """Distance in weights to the source model."""
        return {"source_weights": weight_distance(model.weights, self.before.weights, self.parameters)}

    def _distances(self, model: Subject, oracle: Subject) -> dict[str, float]:
        found = {"oracle_weights": weight_distance(model.weights, oracle.weights, self.parameters)}
        for part in ("forget", "retain"):
            pair = model.predictions[part], oracle.predictions[part]
            found[f"oracle_js_{part}"] = jensen_shannon(*pair).mean().item()
            found[f"oracle_l2_{part}"] = softmax_distance(*pair).mean().item()
        return found

    def relearned(self, model: Subject) -> dict[str, float]:
        """Steps until the forgotten samples are known as well as to the source model."""
        cap, setting = self.audit.relearn_cap, self.bench.setting
        target = self._probed_loss(self.before) + self.audit.relearn_tolerance
        if self._probed_loss(model) <= target:
            return {"relearn_steps": 0.0, "relearn_capped": 0.0}
        training = self.bench.source.recipe(self.bench)

        def build(scratch: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
            relearn = Relearn(self.bench.classifier("relearn"), training, target, cap)
            relearn.model.load_state_dict(model.weights)
            self.bench.fit(relearn, scratch, "relearning")
            return {}, {"steps": relearn.steps}

        parts = {
            "weights": weights_digest(model.weights),
            "samples": setting.checksum("forget"),
            "batches": [setting.data.batch_size, setting.data.augment],
            "training": vars(training),
            "target": target,
            "cap": cap,
            "seed": self.bench.seed,
            "code": self.bench.code_of(Examination.relearned),
        }
        steps = self.bench.store.get("relearn", parts, build).about["steps"]
        return {"relearn_steps": float(cap if steps is None else steps), "relearn_capped": float(steps is None)}

    def _probed_loss(self, model: Subject) -> float:
        chosen = probe(self.bench.setting)
        chosen = chosen[chosen < len(model.predictions["forget"])]  # where options limit the test batches
        labels = self.bench.setting.parts["forget"].targets.cpu()
        return F.cross_entropy(model.predictions["forget"][chosen], labels[chosen]).item()

    @cached_property
    def game(self) -> Game:
        """Who is attacked. Says so where there are too few negatives for a rate that was asked for."""
        audit = self.audit
        game = Game(self.bench.setting, audit.population, audit.shadows, self.bench.seed)
        negatives, rates = int(game.negative.sum()), audit.false_positive_rates
        if missing := sorted({*rates} - {*resolved(rates, negatives)}):
            log.warning(
                "LiRA: %d negatives cannot show a false positive rate of %s; the smallest is %.2g %%, and the true "
                "positive rate there is reported instead",
                negatives,
                " or ".join(f"{100 * rate:g} %" for rate in missing),
                100 / negatives,
            )
        return game

    @cached_property
    def shadows(self) -> Tensor:
        """Confidence (shadows, n) of the shadow models."""
        if not self.bench.source.trained_here:
            raise ValueError("shadow models are sources of other data: audit.shadows needs source=trained")
        return shadow_confidence(self.bench, self.game, self.audit.population)

    def attacked(self, model: Subject) -> dict[str, float]:
        """The likelihood-ratio attack on forgotten training samples, against negatives under the same model."""
        confidence = self.game.confidence(model.predictions)
        scores = log_likelihood_ratio(confidence, self.shadows, self.game.member, self.audit.variance)
        members, others = scores.split([self.game.positives, len(scores) - self.game.positives])
        found = operating_points(members, others, self.audit.false_positive_rates)
        return {f"lira_{name}": value for name, value in found.items()}

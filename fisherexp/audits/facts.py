"""Compares what a model knows of forgotten facts with what its oracle does, and says when a comparison is void."""

import logging
import math
import sys
from collections.abc import Mapping

from fisherexp.methods.method import ModelMethod
from fisherexp.metrics.truth_ratio import forget_quality
from fisherexp.runs.workbench import Workbench

log = logging.getLogger(__name__)

DESTROYED = 0.1  # of the source's utility: less is no model any more
UNCHANGED = 0.01  # of a figure of the source: where none moved by more, tables show methods that did nothing as equal


class FactAudit:
    """forget_quality, of each stage: p-value between its truth ratios on forgotten facts and the oracle's, see
    truth_ratio.py. log10_forget_quality: what tables show and average, as p-values span many powers of ten."""

    scenarios = ("forgetting",)
    requires = ("facts",)
    headings = {"log10_forget_quality": "log10\nquality"}
    better = {"log10_forget_quality": "higher", "forget_quality": "higher"}

    def examine(self, bench: Workbench, method: ModelMethod) -> dict[str, dict[str, float]]:
        """Further metrics by stage. `method` has been through its test loop."""
        after = {name: float(value) for name, value in method.evaluation.compute().items()}
        ratios, metrics = {"after": method.evaluation.predictions()["truth_ratios"]}, {"after": after}
        for stage, name in bench.references.items():
            weights = bench.reference(name)
            found = bench.evaluation(name, weights.key, lambda scratch, weights=weights: weights.tensors)
            ratios[stage], metrics[stage] = found.tensors["truth_ratios"], found.about["metrics"]
        if warning := void(metrics["before"], after):
            log.warning("%s: %s", type(method).__name__, warning)
        quality = {stage: forget_quality(found, ratios["oracle"]) for stage, found in ratios.items()}
        return {
            stage: {"forget_quality": p, "log10_forget_quality": math.log10(max(p, sys.float_info.min))}
            for stage, p in quality.items()
        }


def void(before: Mapping[str, float], after: Mapping[str, float], kept: str = "model_utility") -> str | None:
    """Why figures of the outcome say nothing of forgetting; None where they may. kept: the figure of what stays."""
    advice = "look at method.lr and method.epochs, or what it selects"
    if all(after[name] == value for name, value in before.items()):
        return f"nothing changed, every figure is the source's; {advice}"
    if all(math.isclose(after[name], value, rel_tol=UNCHANGED) for name, value in before.items()):
        return f"next to nothing changed, every figure is within {100 * UNCHANGED:g} % of the source's; {advice}"
    utility, was = after[kept], before[kept]
    if utility < DESTROYED * was:
        return (
            f"{kept.replace('_', ' ')} fell from {was:.3g} to {utility:.3g}: the model is destroyed, and that it "
            "forgot says nothing; lower method.lr or method.epochs, or what it selects"
        )
    return None

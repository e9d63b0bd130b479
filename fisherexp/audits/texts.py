"""Compares how well forgotten texts are told from others with the oracle, and says when a comparison is void."""

import logging

from fisherexp.audits.facts import void
from fisherexp.methods.method import ModelMethod
from fisherexp.metrics.muse import privacy_leakage
from fisherexp.runs.workbench import Workbench

log = logging.getLogger(__name__)


class TextAudit:
    """privleak (%), of each stage: see privacy_leakage. Zero, as of the oracle, is the goal. It is left out, with a
    word, where the oracle takes every text to be forgotten for a learned one beside every text held out.
    """

    scenarios = ("forgetting",)
    requires = ("corpora",)
    headings = {"privleak": "PrivLeak\n%"}
    better = {}

    def examine(self, bench: Workbench, method: ModelMethod) -> dict[str, dict[str, float]]:
        """Further metrics by stage. `method` has been through its test loop."""
        metrics = {"after": {name: float(value) for name, value in method.evaluation.compute().items()}}
        for stage, name in bench.references.items():
            weights = bench.reference(name)
            found = bench.evaluation(name, weights.key, lambda scratch, weights=weights: weights.tensors)
            metrics[stage] = found.about["metrics"]
        if warning := void(metrics["before"], metrics["after"], kept="retain_knowmem"):
            log.warning("%s: %s", type(method).__name__, warning)
        oracle = metrics["oracle"]["min_k_auc"]
        if oracle == 100:
            log.warning("PrivLeak has no value: the oracle's min-k AUC is 100 %, as if it had learned what it has not")
            return {}
        return {stage: {"privleak": privacy_leakage(found["min_k_auc"], oracle)} for stage, found in metrics.items()}

"""What a fine-tuned model still knows of the data its source was trained on.

A classifier gets the source's head back, as its own is of other classes; a language model is evaluated as it is.
"""

from fisherexp.methods.finetuning.finetuning import HEAD
from fisherexp.methods.method import ModelMethod
from fisherexp.runs.artefact import weights_digest
from fisherexp.runs.workbench import Workbench


class SourceKept:
    """What it finds, 'before' and 'after', on the test part of `source.data` or on what evaluate_on=validation puts in
    its place: source_accuracy, in %, of classes or of the next token, and of a language model also source_bits, per
    token, and of requests to refuse or to answer source_refused and source_answered, in % (see metrics/refusals.py).
    'before' is the source, 'after' the finished network; all of it but the head of a classifier, as statistics of
    BatchNorm, is the finished network's.
    """

    scenarios = ("plain",)
    requires = ("class_labels or next_tokens",)
    of_source_data = True  # it needs a source that is trained on data of its own
    headings = {
        "source_accuracy": "source\nacc. %",
        "source_bits": "source\nbits",
        "source_refused": "source\nrefused %",
        "source_answered": "source\nanswered %",
    }
    better = {
        "source_accuracy": "higher",
        "source_bits": "lower",
        "source_refused": "higher",
        "source_answered": "higher",
    }

    def examine(self, bench: Workbench, method: ModelMethod) -> dict[str, dict[str, float]]:
        """Further metrics by stage. `method` has been through its test loop."""
        there = bench.on_data("source.data")
        source = there.trained("source.method")
        before = there.evaluation("the source", source.key, lambda scratch: source.tensors)
        kept = {name: tensor.detach().cpu().clone() for name, tensor in method.model.state_dict().items()}
        if head_back := "next_tokens" not in bench.data.provides:
            kept = {name: source.tensors[name] if name.startswith(HEAD) else kept[name] for name in source.tensors}
        what = "with the source's head" if head_back else "what is kept"
        after = there.evaluation(what, weights_digest(kept), lambda scratch: kept)
        stages = {"before": before, "after": after}
        found = {stage: evaluation.about["metrics"] for stage, evaluation in stages.items()}
        asked = [heading.removeprefix("source_") for heading in self.headings]
        figures = [figure for figure in asked if f"test_{figure}" in found["before"]]
        return {stage: {f"source_{f}": metrics[f"test_{f}"] for f in figures} for stage, metrics in found.items()}

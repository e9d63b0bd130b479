"""What a fine-tuned model still knows of the data its source was trained on: the source's head is put back."""

from fisherexp.methods.finetuning.finetuning import HEAD
from fisherexp.methods.method import ModelMethod
from fisherexp.runs.artefact import weights_digest
from fisherexp.runs.workbench import Workbench


class SourceKept:
    """What it finds, 'before' and 'after': source_accuracy, in %, on the test part of `source.data`, of the source and
    of the finished network with the source's head; all else, as statistics of BatchNorm, is the finished network's.
    """

    scenarios = ("plain",)
    requires = ("class_labels",)
    of_source_data = True  # it needs a source that is trained on data of its own
    headings = {"source_accuracy": "source\nacc. %"}
    better = {"source_accuracy": "higher"}

    def examine(self, bench: Workbench, method: ModelMethod) -> dict[str, dict[str, float]]:
        """Further metrics by stage. `method` has been through its test loop."""
        there = bench.on_data("source.data")
        source = there.trained("source.method")
        before = there.evaluation("the source", source.key, lambda scratch: source.tensors)
        own = {name: tensor.detach().cpu().clone() for name, tensor in method.model.state_dict().items()}
        kept = {name: source.tensors[name] if name.startswith(HEAD) else own[name] for name in source.tensors}
        after = there.evaluation("with the source's head", weights_digest(kept), lambda scratch: kept)
        part = there.setting.evaluated[0]
        stages = {"before": before, "after": after}
        return {stage: {"source_accuracy": e.about["metrics"][f"{part}_accuracy"]} for stage, e in stages.items()}

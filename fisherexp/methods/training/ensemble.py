"""An ensemble: networks that were trained alike from other weights and in another order, and answer together.

    f(x) = (1/K) Σ_k f_k(x)

Lakshminarayanan et al., NeurIPS 2017, arXiv 1612.01474, who average probabilities. Logits are averaged in "Pre-training
under infinite compute" (Kim et al., ICLR 2026, arXiv 2509.14786): with fixed data, the loss falls in K as A/K + E.
"""

import copy
from typing import Literal

from torch import nn

from fisherexp.config.types import Count
from fisherexp.data.batch import Batch
from fisherexp.methods.method import ModelMethod
from fisherexp.methods.needs import OtherSeeds
from fisherexp.methods.training.mean_outputs import mean_logits
from fisherexp.scenarios.setting import Setting


class Ensemble(ModelMethod):
    """The source is the first member, sources of other seeds are the others; `training` says how all are trained.

    members: K. average: of logits or of probabilities.

    The outcome has the metrics of the first k members together, `by_members`, for k = 1 … K. What a run leaves as its
    weights are those of the first.
    """

    paper = "Lakshminarayanan et al., NeurIPS 2017, arXiv 1612.01474"
    start = "source"
    study = True
    adapts_at_test = True  # no single network gives its figures
    needs = (OtherSeeds(),)
    epochs = 0

    def __init__(
        self, model: nn.Module, members: Count = 3, average: Literal["logits", "probabilities"] = "logits"
    ) -> None:
        super().__init__(model)
        self.others, self.average = members - 1, average
        self.further = nn.ModuleList()

    def source_loaded(self) -> None:
        for state in self.given["other_seeds"]:
            member = copy.deepcopy(self.model)
            member.load_state_dict(state)
            self.further.append(member)

    def evaluate(self, setting: Setting) -> None:
        super().evaluate(setting)
        self.evaluations = [setting.evaluation().to(self.device) for _ in range(self.others)] + [self.evaluation]

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        logits = [member(batch.inputs).detach() for member in (self.model, *self.further)]
        for number, evaluation in enumerate(self.evaluations, start=1):
            evaluation.update(dataloader_idx, mean_logits(logits[:number], self.average), batch.targets)

    def on_test_epoch_end(self) -> None:
        self.outcome["by_members"] = [
            {name: float(value) for name, value in evaluation.compute().items()} for evaluation in self.evaluations
        ]

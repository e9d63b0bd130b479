"""Elastic weight consolidation: a quadratic penalty around the solution of every former task, weighted by its Fisher.

Paper: Kirkpatrick et al., PNAS 2017, arXiv 1612.00796, equation 3, with one penalty for each former task k:

    L(θ) = L_t(θ) + λ/2 Σ_{k<t} Σ_j F_{k,j} (θ_j - θ*_{k,j})²

F_k is the diagonal Fisher of task k at its solution θ*_k.

Which Fisher it is decides what λ means, by orders of magnitude (importance.labels, importance.gradients):
- the Fisher as defined is labels=expected; van de Ven (arXiv 2502.11756) compares what published code takes instead;
- popular code squares the gradient of a batch's mean loss: gradients=batch_mean, with the batch size in the result.
"""

from torch import nn

from fisherexp.config.types import NonNegative
from fisherexp.curvature import FisherDiagonal, accumulate
from fisherexp.methods.continual_learning.anchored import AnchoredTraining, snapshot
from fisherexp.methods.curvature import reduce_over_ranks
from fisherexp.methods.importance import Importance
from fisherexp.methods.recipe import Recipe
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import derive


def task_fisher(model: nn.Module, task: Setting, importance: Importance, number: int) -> FisherDiagonal:
    """The diagonal Fisher of a task's training samples, on every rank; `number` of the task: for sampled labels."""
    accumulator = importance.accumulator(model, derive("labels", task.seed, number), task.data.objective.likelihood)
    batches = importance.batches(task, "train", importance.batches_per_update)
    accumulate(accumulator, ((batch.inputs, batch.targets, batch.weights) for batch in batches))
    if not importance.replicated:
        reduce_over_ranks(accumulator)
    return accumulator.result()


class EWC(AnchoredTraining):
    """One anchor for each former task. lambda_, schedule, floor: see AnchoredTraining. importance: the Fisher.

    Raises ValueError for the mean gradient under expected labels, which is zero.
    """

    paper = "Kirkpatrick et al., PNAS 2017, arXiv 1612.00796"
    search = {"lambda_": "tag(log, interval(10, 1e6))"}

    def __init__(
        self, model: nn.Module, training: Recipe, importance: Importance, lambda_: NonNegative, **options
    ) -> None:
        super().__init__(model, training, lambda_, **options)
        if importance.gradients == "batch_mean" and importance.labels == "expected":
            raise ValueError("importance.labels=expected has no batch_mean: use sampled, or gradients=per_sample")
        self.importance = importance

    def fisher(self, task: Setting) -> FisherDiagonal:
        """Of the task at its end."""
        return task_fisher(self.model, task, self.importance, self.memory["task"])

    def finish_task(self, task: Setting) -> None:
        self.memory["anchors"].append({"omega": dict(self.fisher(task).items()), "anchor": snapshot(self.model)})

"""Gives a search's trial up early: after every epoch the metric searched for is reported, and Optuna decides."""

import torch
from pytorch_lightning import LightningModule, Trainer

from fisherexp.callbacks.watcher import Watcher
from fisherexp.metrics.over_batches import evaluated
from fisherexp.models.eval_mode import eval_mode
from fisherexp.ranks import agreed
from fisherexp.runs.study import StudyFile, trial_of_environment
from fisherexp.scenarios.setting import Setting
from fisherexp.stop import Pruned


class Prune(Watcher):
    """Of the trial named in the environment by the search."""

    def __init__(self, study_file: StudyFile, number: int) -> None:
        import optuna

        self.metric = study_file.metric.rpartition("/")[2]
        study = study_file.opened()
        self.trial = optuna.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)
        self.setting: Setting | None = None

    @classmethod
    def of_environment(cls) -> list["Prune"]:
        """The callback of the trial that this process makes; none outside of a search, or where nothing is pruned."""
        trial = trial_of_environment()
        return [cls(*trial)] if trial and trial[0].pruner != "none" else []

    def fit_begins(self, setting: Setting) -> None:
        self.setting = setting

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.current_epoch + 1 >= (trainer.max_epochs or 0):
            return  # it is done
        value = self._evaluate(module).get(self.metric)
        if value is None:
            return  # a metric that only the end of the run knows
        give_up = False
        if trainer.is_global_zero:
            self.trial.report(value, trainer.current_epoch + 1)
            give_up = self.trial.should_prune()
        if agreed(give_up):
            raise Pruned(f"{self.metric} {value:.6g} after epoch {trainer.current_epoch + 1}")

    def _evaluate(self, module: LightningModule) -> dict[str, float]:
        parts = (self.setting.loader(part, rank=0, world_size=1) for part in self.setting.evaluated)
        with torch.no_grad(), eval_mode(module.model):
            return evaluated(module.model, parts, self.setting.evaluation().to(module.device))

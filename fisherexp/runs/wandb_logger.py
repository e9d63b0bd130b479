"""Lightning's logger for Weights & Biases, which tells each row of a curve once."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only


class RecordingWandb(WandbLogger):
    """Also gets the run's pictures and record and, where it `sends_artefacts`, those the run worked with.

    A run that goes on is told its curve from the start (see loggers.py). Rows of it that the server already has, as
    many as it counts steps, are skipped; an offline run starts at none.
    """

    def __init__(self, sends_artefacts: bool, **options: Any) -> None:
        super().__init__(**options)
        self.sends_artefacts = sends_artefacts
        self._told = 0

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step is not None:
            self._told += 1
            if self._told <= self.experiment.starting_step:
                return
        super().log_metrics(metrics, step)

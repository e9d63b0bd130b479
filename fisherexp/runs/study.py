"""A search's study as its workers and its trials open it. Light: no torch; Optuna only where it is used."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fisherexp.files import write_json

VARIABLE = "FISHEREXP_TRIAL"


@dataclass(frozen=True)
class StudyFile:
    """What a trial must know of its study. storage: a URL (sqlite:///…) or the path of a journal file.

    pruner: 'median' (worse than the median of earlier trials at the same epoch), 'halving' (asynchronous successive
    halving) or 'none'. startup_trials: that are never pruned. warmup_epochs: before the first evaluation.
    """

    storage: str
    study: str
    metric: str
    pruner: str
    startup_trials: int
    warmup_epochs: int

    def write(self, file: Path) -> None:
        write_json(file, asdict(self))

    def opened(self) -> Any:
        """The Optuna study, which must exist."""
        import optuna

        return optuna.load_study(study_name=self.study, storage=storage(self.storage), pruner=self._pruner())

    def _pruner(self) -> Any:
        from optuna import pruners

        return {
            "none": pruners.NopPruner,
            "median": lambda: pruners.MedianPruner(self.startup_trials, self.warmup_epochs),
            "halving": lambda: pruners.SuccessiveHalvingPruner(min_resource=max(1, self.warmup_epochs)),
        }[self.pruner]()


def storage(path: str) -> Any:
    """Optuna's storage for a URL or the path of a journal file. Raises ValueError, in one line, where it has none."""
    from optuna.storages import JournalStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    if "://" not in path:
        return JournalStorage(JournalFileBackend(path))
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return get_storage(path)
    except (SQLAlchemyError, ImportError) as error:  # of a database that is none, or whose driver is not installed
        raise ValueError(f"hydra.sweeper.storage={path}: {str(error).partition(chr(10))[0]}") from error


def handle(file: Path, number: int) -> str:
    """What the environment variable tells a trial: where its study is described, and which trial it is."""
    return f"{file}#{number}"


def trial_of_environment() -> tuple[StudyFile, int] | None:
    """(study, number of the trial) that this process makes; None outside of a search."""
    if not (text := os.environ.get(VARIABLE)):
        return None
    file, _, number = text.rpartition("#")
    return StudyFile(**json.loads(Path(file).read_text(encoding="utf-8"))), int(number)

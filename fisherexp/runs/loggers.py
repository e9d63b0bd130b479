"""Lightning loggers that know a run's folder and name. run.json is the truth; these mirror it.

All of them get the same names: metrics of a loop as the loop calls them, final ones as `<stage>/<metric>`, the config
as hyper-parameters. Weights & Biases also gets the run's pictures, tables and record, and artefacts if asked.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger

SENT = ("weights", "fisher", "kfac")  # kinds of artefacts worth keeping elsewhere


def csv(folder: Path, run_id: str, group: str) -> Logger:
    """metrics.csv in the run folder."""
    from pytorch_lightning.loggers import CSVLogger

    return CSVLogger(folder, name="csv", version="")


def tensorboard(folder: Path, run_id: str, group: str) -> Logger:
    """Event files in the run folder."""
    from pytorch_lightning.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="")


def wandb(folder: Path, run_id: str, group: str, project: str, offline: bool, artefacts: bool) -> Logger:
    """A Weights & Biases run whose id is the run's identity, so that a resumed run continues its curve.

    Runs that differ in their seed alone share its group. artefacts: send those the run worked with, too.
    """
    return RecordingWandb(
        artefacts,
        name=run_id,
        id=run_id,
        group=group,
        save_dir=folder,
        project=project,
        offline=offline,
        resume=None if offline else "allow",
    )


class RecordingWandb(WandbLogger):
    """Also gets the run's pictures and record and, where it `sends_artefacts`, those the run worked with."""

    def __init__(self, sends_artefacts: bool, **options: Any) -> None:
        super().__init__(**options)
        self.sends_artefacts = sends_artefacts


def mlflow(folder: Path, run_id: str, group: str, experiment: str, tracking_uri: str | None) -> Logger:
    """An MLflow run; without `tracking_uri` in a SQLite file in the run folder."""
    from pytorch_lightning.loggers import MLFlowLogger

    try:
        return MLFlowLogger(
            experiment, run_name=run_id, tracking_uri=tracking_uri or f"sqlite:///{folder / 'mlflow.db'}"
        )
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("logger=mlflow needs MLflow: pip install 'fisherexp[mlflow]'") from error


def mirror(loggers: list[Logger], record: dict[str, Any], folder: Path, artefacts: Mapping[Path, str]) -> None:
    """Send a finished run's config and final metrics to every logger. artefacts: file -> kind of those it used."""
    figures = {f"{stage}/{name}": value for stage, found in record["metrics"].items() for name, value in found.items()}
    for logger in loggers:
        logger.log_hyperparams(record["config"])
        logger.log_metrics(figures)
        if isinstance(logger, RecordingWandb):
            sent = {file: kind for file, kind in artefacts.items() if kind in SENT and logger.sends_artefacts}
            _to_wandb(logger.experiment, record, folder, sent)
        logger.save()


def _to_wandb(run: Any, record: dict[str, Any], folder: Path, artefacts: Mapping[Path, str]) -> None:
    import wandb

    rows = [[stage, name, value] for stage, found in record["metrics"].items() for name, value in found.items()]
    pictures = {f"figures/{file.stem}": wandb.Image(str(file)) for file in sorted(folder.glob("*.png"))}
    run.log({"record/metrics": wandb.Table(["stage", "metric", "value"], rows)} | pictures)
    told = (
        "identity",
        "command",
        "code",
        "versions",
        "hardware",
        "data_checksum",
        "seconds",
        "memory",
        "costs",
        "trial",
    )
    run.summary.update({"record": {key: record[key] for key in told}})
    for file, kind in artefacts.items():
        artifact = wandb.Artifact(f"{kind}-{file.stem}", type=kind)
        artifact.add_file(str(file))
        run.log_artifact(artifact)


def close(loggers: list[Logger], status: str) -> None:
    """Finish every logger, so that the next run of this process starts its own."""
    for logger in loggers:
        logger.finalize(status)
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            logger._experiment.finish(exit_code=0 if status == "success" else 1)

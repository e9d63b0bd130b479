"""Lightning loggers that know a run's folder and name. run.json is the truth; these mirror it."""

from pathlib import Path

from pytorch_lightning.loggers import Logger


def csv(folder: Path, run_id: str) -> Logger:
    """metrics.csv in the run folder."""
    from pytorch_lightning.loggers import CSVLogger

    return CSVLogger(folder, name="csv", version="")


def tensorboard(folder: Path, run_id: str) -> Logger:
    """Event files in the run folder."""
    from pytorch_lightning.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="")


def wandb(folder: Path, run_id: str, project: str, offline: bool) -> Logger:
    """A Weights & Biases run whose id is the run's identity, so that a resumed run continues its curve."""
    from pytorch_lightning.loggers import WandbLogger

    return WandbLogger(
        name=run_id,
        id=run_id,
        save_dir=folder,
        project=project,
        offline=offline,
        resume=None if offline else "allow",
    )


def mlflow(folder: Path, run_id: str, experiment: str, tracking_uri: str | None) -> Logger:
    """An MLflow run; without `tracking_uri` in a SQLite file in the run folder."""
    from pytorch_lightning.loggers import MLFlowLogger

    try:
        return MLFlowLogger(
            experiment, run_name=run_id, tracking_uri=tracking_uri or f"sqlite:///{folder / 'mlflow.db'}"
        )
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("logger=mlflow needs MLflow: pip install 'fisherexp[mlflow]'") from error


def close(loggers: list[Logger], status: str) -> None:
    """Finish every logger, so that the next run of this process starts its own."""
    for logger in loggers:
        logger.finalize(status)
        experiment = getattr(logger, "_experiment", None)
        if type(logger).__name__ == "WandbLogger" and experiment is not None:
            experiment.finish(exit_code=0 if status == "success" else 1)

"""Lightning loggers that know a run's folder and name. run.json is the truth; these mirror it.

All of them get the same names: metrics of a loop as the loop calls them, final ones as `<stage>/<metric>`, the config
as hyper-parameters. Weights & Biases also gets the run's pictures, tables and record, and artefacts if asked.

A logger begins afresh in every process. A fit that goes on from a saved state, or whose result is found, first tells it
the curve up to there, so what an earlier process of the same run left is dropped: here when the logger is made, on a
server by the logger itself. Each figure comes once, whatever killed the run.
"""

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from fisherexp.ranks import is_follower
from fisherexp.runs.wandb_logger import RecordingWandb

SENT = ("weights", "fisher", "kfac")  # kinds of artefacts worth keeping elsewhere


def csv(folder: Path, run_id: str, group: str) -> Logger:
    """metrics.csv in the run folder."""
    from pytorch_lightning.loggers import CSVLogger

    _drop(folder / "csv")
    return CSVLogger(folder, name="csv", version="")


def tensorboard(folder: Path, run_id: str, group: str) -> Logger:
    """Event files in the run folder."""
    from pytorch_lightning.loggers import TensorBoardLogger

    _drop(folder / "tensorboard")
    return TensorBoardLogger(folder, name="tensorboard", version="")


def wandb(folder: Path, run_id: str, group: str, project: str, offline: bool, artefacts: bool) -> Logger:
    """A Weights & Biases run whose id is the run's identity. Offline it lies in one folder, that of the last process,
    with the whole curve. Online a run that goes on skips what the server has of it.

    Runs that differ in their seed alone share its group. artefacts: send those the run worked with, too.
    """
    from wandb import Settings, setup

    # It would draw a table of every figure over ours; errors are shown, and `close` says where the run lies.
    setup(Settings(quiet=True, show_info=False, show_warnings=False))
    if offline:
        _drop(folder / "wandb")
    return RecordingWandb(
        artefacts,
        name=run_id,
        id=run_id,
        group=group,
        save_dir=folder,
        project=project,
        offline=offline,
        mode="offline" if offline else None,
        resume=None if offline else "allow",
    )


def mlflow(folder: Path, run_id: str, group: str, experiment: str, tracking_uri: str | None) -> Logger:
    """An MLflow run; without `tracking_uri` in a SQLite file in the run folder. Earlier ones of the same run are marked
    as deleted."""
    from pytorch_lightning.loggers import MLFlowLogger

    tracking_uri = tracking_uri or f"sqlite:///{folder / 'mlflow.db'}"
    try:
        made = MLFlowLogger(experiment, run_name=run_id, tracking_uri=tracking_uri)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("logger=mlflow needs MLflow: pip install 'fisherexp[mlflow]'") from error
    if not is_follower():
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri)
        if known := client.get_experiment_by_name(experiment):
            for earlier in client.search_runs([known.experiment_id], f"attributes.run_name = '{run_id}'"):
                client.delete_run(earlier.info.run_id)
    return made


def _drop(folder: Path) -> None:
    """What an earlier process of the run left; its curve is told again."""
    if not is_follower() and folder.is_dir():
        shutil.rmtree(folder)


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
        if isinstance(logger, RecordingWandb) and (experiment := logger._experiment) is not None:
            folder = shlex.quote(str(Path(experiment.dir).parent))
            where = f"wandb sync {folder}" if experiment.offline else experiment.url
            experiment.finish(exit_code=0 if status == "success" else 1)
            print(f"wandb    {where}", file=sys.stderr)

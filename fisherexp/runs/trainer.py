"""The Lightning Trainer as this project uses it: few, typed options; everything else has one answer here."""

import logging
import re
import warnings
from pathlib import Path
from typing import Literal

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.strategies import ModelParallelStrategy

from fisherexp.callbacks.checkpoint import WholeCheckpoints
from fisherexp.config.types import Count, Positive, Size


def build_trainer(
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto",
    devices: Count | Literal["auto"] = 1,
    num_nodes: Count = 1,
    strategy: Literal["auto", "ddp", "fsdp"] = "auto",
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "64-true"] = "32-true",
    fast_dev_run: bool = False,
    overfit_batches: Size = 0,
    limit_train_batches: Count | None = None,
    limit_test_batches: Count | None = None,
    profiler: Literal["simple", "advanced", "pytorch"] | None = None,
    detect_anomaly: bool = False,
    deterministic: bool = False,
    gradient_clip_val: Positive | None = None,
    accumulate_grad_batches: Count = 1,
    *,
    folder: Path,
    epochs: int = 1,
    callbacks: list[Callback] | None = None,
    loggers: list[Logger] | None = None,
    inference_mode: bool = True,
    shards: bool = False,
) -> Trainer:
    """A Trainer that writes nothing but what `callbacks` and `loggers` write. Options are Lightning's own.

    shards: with strategy=fsdp, cut weights into shares; otherwise every process has all of them, as with ddp.
    """
    _quiet()
    if strategy == "fsdp":
        strategy = _fully_sharded(devices * num_nodes) if shards else "ddp"
    return Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
        precision=precision,
        fast_dev_run=fast_dev_run,
        overfit_batches=overfit_batches,
        limit_train_batches=limit_train_batches,
        limit_test_batches=limit_test_batches,
        profiler=profiler,
        detect_anomaly=detect_anomaly,
        deterministic=deterministic,
        gradient_clip_val=gradient_clip_val,
        accumulate_grad_batches=accumulate_grad_batches,
        default_root_dir=folder,
        max_epochs=epochs,
        callbacks=callbacks or [],
        logger=loggers or False,
        inference_mode=inference_mode,
        # Who stops, saves and goes back into the queue is said in stop.py, and by submitit where that is at work.
        plugins=[
            WholeCheckpoints(),
            *([SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []),
        ],
        # Lightning would add a callback of its own; it wants to hear of ours.
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks or []),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        # Once per epoch is often enough: a log call inside the loop costs more than a small net's step.
        log_every_n_steps=10**9,
    )


def _fully_sharded(processes: int) -> ModelParallelStrategy:
    """Lightning's FSDP2, whose states are of whole tensors in one file: another number of processes may go on."""
    return ModelParallelStrategy(
        data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def device_of(accelerator: str) -> torch.device:
    """Where a loop without a Trainer works: the first GPU, if it is asked for or there, else the CPU (Apple's GPU has
    no float64). Raises ValueError, in one line, for a GPU that is not there."""
    found = torch.cuda.is_available()
    if accelerator == "gpu" and not found:
        raise ValueError("trainer.accelerator=gpu: torch finds no CUDA device here; trainer=cpu")
    return torch.device("cuda" if found and accelerator in ("auto", "gpu") else "cpu")


def steps_per_epoch(batches: int, trainer: Trainer) -> int:
    """Optimizer steps for so many batches, as far as options limit them."""
    for limit in (trainer.limit_train_batches, trainer.overfit_batches):
        if isinstance(limit, int) and limit > 0:
            batches = min(batches, limit)
    return -(-batches // trainer.accumulate_grad_batches)


def _quiet() -> None:
    # Lightning announces devices, tips and missing workers at every fit; a run here has several fits, and its
    # loaders need no workers.
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    unhelpful = (
        "does not have many workers",
        "`training_step` returned `None`",
        "`LightningModule.configure_optimizers` returned `None`",
        "is smaller than the logging interval",
        "`srun` command is available",
        "LeafSpec",
        "exists and is not empty",  # the csv logger, of a run that goes on or is made again
    )
    for words in unhelpful:
        warnings.filterwarnings("ignore", message=f".*{re.escape(words)}")

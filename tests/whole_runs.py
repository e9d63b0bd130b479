"""Whole runs as a user starts them: a line that is valid, and a folder of its own."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from fisherexp.config.explain import composed
from fisherexp.config.validate import validate
from fisherexp.experiment import run_experiment


def valid(lines: list[str]) -> DictConfig:
    """The config of a command line in which nothing is wrong."""
    cfg = composed(lines)
    assert validate(cfg) == []
    return cfg


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The record of a run that is left in a new folder."""
    folder.mkdir()
    return run_experiment(cfg, folder, [])

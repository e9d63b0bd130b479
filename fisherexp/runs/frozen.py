"""A run's config as it will be run, in the run's folder: another process, today or next week, starts from it."""

import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from fisherexp.files import write_json, write_text
from fisherexp.runs.identity import run_folder


def freeze(cfg: DictConfig, overrides: list[str]) -> Path:
    """Write the resolved config and the command line's overrides into the run's folder; returns the folder."""
    folder = run_folder(cfg)
    write_json(folder / "overrides.json", overrides)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    return folder


def thaw(folder: Path) -> tuple[DictConfig, list[str]]:
    """(config, overrides) that `freeze` left in `folder`. Raises FileNotFoundError where there are none."""
    cfg = OmegaConf.load(folder / "config.yaml")
    OmegaConf.set_struct(cfg, True)
    return cfg, json.loads((folder / "overrides.json").read_text(encoding="utf-8"))

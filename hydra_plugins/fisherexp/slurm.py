"""Hydra's side of `hydra/launcher=slurm`; the work is done in fisherexp/sweeps/slurm.py."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class SlurmLauncher(Launcher):
    """Submits the jobs of a sweep as an array and returns at once. Options: conf/hydra/launcher/slurm.yaml."""

    options = "fisherexp.sweeps.slurm.Options"  # that declare them

    def __init__(self, **options: Any) -> None:
        self.given = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from fisherexp.config.locations import searched
        from fisherexp.sweeps.compose import composer
        from fisherexp.sweeps.slurm import Options, launch

        compose = composer(self.context, self.config)
        added = searched(self.config.hydra.runtime.config_sources)
        jobs = [
            (compose(list(overrides)), [*added, *(line for line in overrides if not _is_hydras(line))])
            for overrides in job_overrides
        ]
        launch(jobs, Options(**OmegaConf.to_container(OmegaConf.create(self.given))))
        return []


def _is_hydras(override: str) -> bool:
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))

"""Hydra's side of `hydra/sweeper=optuna`; the work is done in fisherexp/sweeps/search.py."""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fisherexp.config.shorthand import native


class OptunaSweeper(Sweeper):
    """Searches by Optuna's ask and tell. Options: conf/hydra/sweeper/optuna.yaml; `also` is for grids."""

    options = "fisherexp.sweeps.search.Options"  # that declare them

    def __init__(self, params: dict[str, Any] | None = None, also: Any = None, **options: Any) -> None:
        self.lines = [native(f"{option}={value}") for option, value in (params or {}).items()]
        self.given = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context, self.jobs = config, hydra_context, 0
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from fisherexp.config.problem import ConfigError, Problem

        if not hasattr(self.launcher, "task_function"):
            reason = "a search waits for its trials, and this launcher does not"
            raise ConfigError([Problem("hydra/launcher=slurm", reason, "hydra/launcher=submitit_slurm")])
        try:
            import optuna  # noqa: F401
        except ModuleNotFoundError:
            raise ConfigError(
                [Problem("hydra/sweeper=optuna", "needs Optuna: pip install 'fisherexp[search]'")]
            ) from None
        from fisherexp.sweeps.compose import composer
        from fisherexp.sweeps.search import Options, Search

        options = Options(**OmegaConf.to_container(OmegaConf.create(self.given)))
        lines = [*self.lines, *arguments]
        Search(lines, options, composer(self.hydra_context, self.config), self._launch).run()

    def _launch(self, jobs: list[list[str]]) -> None:
        self.launcher.launch(jobs, initial_job_idx=self.jobs)
        self.jobs += len(jobs)

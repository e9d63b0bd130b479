"""The product of all swept values, as Hydra's basic sweeper makes it, without the runs that are done."""

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser


class GridSweeper(BasicSweeper):
    """Shows what is done and launches what is missing, in batches of `max_batch_size` (null: all at once).

    Hydra's own composes every run twice from its files before a launcher does so once more; here files are read once
    for each choice of files, which is what makes it quick to launch a finished sweep again.
    """

    def sweep(self, arguments: list[str]) -> list[Any]:
        from fisherexp.app import show_if_done
        from fisherexp.sweeps.compose import composer

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        compose = composer(self.hydra_context, self.config)
        launched = 0
        returns = []
        for batch in self.split_arguments(overrides, self.max_batch_size):
            missing = [job for job in batch if not show_if_done(compose(job))]
            if missing:
                returns.append(self.launcher.launch(missing, initial_job_idx=launched))
                launched += len(missing)
        for result in (result for results in returns for result in results):
            _ = result.return_value  # raises what the launcher caught
        return returns

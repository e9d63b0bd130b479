"""The product of all swept values, as Hydra's basic sweeper makes it, without the runs that are done."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from fisherexp.config.shorthand import native
from fisherexp.config.types import Count


def runs(
    params: Mapping[str, Any], also: Sequence[Mapping[str, Any]], arguments: list[str], parser: OverridesParser
) -> list[list[str]]:
    """The overrides of every run; params and also as below, arguments: those of the command line."""
    arguments = [native(line) for line in arguments]
    given = {override.get_key_element() for override in parser.parse_overrides(arguments)}
    found = []
    for further in ({}, *also):
        if given.isdisjoint(further):
            lines = [native(f"{key}={value}") for key, value in {**params, **further}.items()]
            (product,) = BasicSweeper.split_arguments(parser.parse_overrides([*lines, *arguments]), None)
            found += product
    return found


class GridSweeper(BasicSweeper):
    """Shows what is done and launches what is missing, in batches of `max_batch_size` (null: all at once).

    Hydra's own composes every run twice from its files before a launcher does so once more; here files are read once
    for each choice of files, which is what makes it quick to launch a finished sweep again.

    also: further products for what is no product of one list a key, say a window of one method only. Each is `params`
    with some keys set anew or added; it is left out where the command line sets one of these.
    """

    def __init__(
        self,
        max_batch_size: Count | None = None,
        params: dict[str, Any] | None = None,
        also: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self.also = also or []

    def sweep(self, arguments: list[str]) -> list[Any]:
        from fisherexp.app import show_if_done
        from fisherexp.sweeps.compose import composer

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        compose = composer(self.hydra_context, self.config)
        launched = 0
        returns = []
        for batch in self.split_overrides_to_chunks(
            runs(self.params, self.also, arguments, parser), self.max_batch_size
        ):
            missing = [job for job in batch if not show_if_done(compose(job))]
            if missing:
                returns.append(self.launcher.launch(missing, initial_job_idx=launched))
                launched += len(missing)
        for result in (result for results in returns for result in results):
            _ = result.return_value  # raises what the launcher caught
        return returns

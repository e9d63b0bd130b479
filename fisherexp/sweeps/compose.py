"""Configs of a sweep's runs, as Hydra composes them; what differs in values only is composed once."""

from collections.abc import Callable

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from fisherexp.config.copied import copied
from fisherexp.config.locations import groups, search_path
from fisherexp.config.shorthand import native

Compose = Callable[[list[str]], DictConfig]


def composer(context: HydraContext, config: DictConfig) -> Compose:
    """A function from a run's overrides to its config (without the node `hydra`).

    config: that of the sweep. Choices of config files decide a composition, values are put in afterwards: a sweep
    over a thousand seeds reads its files once, where Hydra would read them a thousand times.
    """
    known = groups(search_path(list(config.hydra.searchpath)))
    parser = OverridesParser.create()
    bases: dict[tuple[str, ...], DictConfig] = {}

    def compose(overrides: list[str]) -> DictConfig:
        parsed = parser.parse_overrides([native(line) for line in overrides])
        values = [o for o in parsed if "." in o.key_or_group or o.key_or_group not in known]
        values = [o for o in values if not o.key_or_group.startswith("hydra")]
        choices = tuple(o.input_line for o in parsed if o not in values)
        if choices not in bases:
            cfg = context.config_loader.load_sweep_config(config, list(choices))
            with open_dict(cfg):
                del cfg["hydra"]
            bases[choices] = cfg
        cfg = copied(bases[choices])
        ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
        return cfg

    return compose

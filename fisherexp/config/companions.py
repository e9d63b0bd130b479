"""Companions: the data, model, scenario, … that a method is at home with, named in its own config file.

```yaml
# conf/method/eata.yaml
defaults:
  - _self_
  - override /scenario@_global_.scenario: continual
```

Hydra applies them where neither the command line nor an experiment chooses. A method that serves another one
(`method@source=…`, `method@oracle=…`, `/method@experts`) brings none: the run is not about it. Hydra has no word for
that, so its collection of overrides is narrowed here; whoever composes imports this module.
"""

import functools
from pathlib import Path

import yaml
from hydra._internal import defaults_list
from hydra.core.default_element import GroupDefault

from fisherexp.config.locations import conf_dir
from fisherexp.config.yaml_files import read_yaml

CONFIG_NAME = "run"
OVERRIDE = "override /"
GLOBAL = "@_global_."


class OfTheRunsOwnMethod(defaults_list.Overrides):
    """Hydra's overrides from defaults lists, without those of a method in any node but `method`."""

    def add_override(self, parent_config_path: str, default: GroupDefault) -> None:
        if parent_config_path.startswith("method/") and default.parent_package != "method":
            return
        super().add_override(parent_config_path, default)


defaults_list.Overrides = OfTheRunsOwnMethod


@functools.cache
def standard() -> dict[str, str | list[str] | None]:
    """Config group -> option of a run that chooses nothing."""
    listed = read_yaml(conf_dir() / f"{CONFIG_NAME}.yaml")["defaults"]
    return {group: option for entry in listed if isinstance(entry, dict) for group, option in entry.items()}


def companions(file: Path) -> dict[str, str | list[str]]:
    """Config group -> option that a method's file names for it; the option is a list where the group takes several.
    Nothing of a file that is no config: composing says what is wrong with it."""
    try:
        held = read_yaml(file)
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    defaults = held.get("defaults") if isinstance(held, dict) else None
    if not isinstance(defaults, list):
        return {}
    named = [item for entry in defaults if isinstance(entry, dict) for item in entry.items()]
    return {
        key.removeprefix(OVERRIDE).partition(GLOBAL)[2]: option for key, option in named if key.startswith(OVERRIDE)
    }

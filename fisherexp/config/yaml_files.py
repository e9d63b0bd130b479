"""YAML files read as they are, before Hydra composes anything from them."""

from pathlib import Path
from typing import Any

import yaml

# libyaml's reads a file eight times as fast; PyYAML can be built without it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(file: Path) -> Any:
    """Plain containers of a YAML file. Raises yaml.YAMLError or UnicodeDecodeError where it is none."""
    return yaml.load(file.read_text(encoding="utf-8"), Loader=LOADER)

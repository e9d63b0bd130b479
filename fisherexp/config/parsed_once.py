"""Config files are parsed once in a process.

A composition reads some twenty of them, most of them those of the composition before. Hydra keeps what it has read
for one composition only; its repository of configs is extended here, so whoever composes imports this module.
"""

import os
import pickle

from hydra._internal import config_loader_impl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource

_parsed: dict[tuple, bytes] = {}  # pickled: copies from that take a fifth of the time of copy.deepcopy


class ParsedOnce(ConfigRepository):
    """Hydra's repository, whose files are parsed again only where their size or time of change differs."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        state = _state(source, config_path) if source else None
        if state is None:
            return super().load_config(config_path)
        key = (source.path, source.provider, config_path, *state)
        if key not in _parsed:
            _parsed[key] = pickle.dumps(super().load_config(config_path), pickle.HIGHEST_PROTOCOL)
        return pickle.loads(_parsed[key])  # a composition takes over the nodes of what it is given


def _state(source: ConfigSource, config_path: str) -> tuple | None:
    """Equal as long as the file is the same; None of what may change unseen."""
    if source.scheme() == "file":
        stat = os.stat(os.path.join(source.path, source._normalize_file_name(config_path)))
        return stat.st_mtime_ns, stat.st_size
    return () if source.path == "hydra.conf" else None  # Hydra's own


config_loader_impl.ConfigRepository = ParsedOnce

"""fisherexp: honest experiments with curvature-aware methods.

From Python and notebooks: `run`, `records`, `load`, `table`, `plot`, and the errors `ConfigError` and `RunFailed`.
Importing the package costs nothing; each of these is loaded when it is first asked for, and rooms load by name.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fisherexp.config.problem import ConfigError
    from fisherexp.interactive import load, plot, records, run, table
    from fisherexp.single import RunFailed

__version__ = "0.1.0"

_WHERE = dict.fromkeys(("load", "plot", "records", "run", "table"), "fisherexp.interactive")
_WHERE |= {"ConfigError": "fisherexp.config.problem", "RunFailed": "fisherexp.single"}
__all__ = ["ConfigError", "RunFailed", "load", "plot", "records", "run", "table"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])

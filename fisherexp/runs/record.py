"""Where a result comes from: code, versions, machine, command. Plain containers only."""

import functools
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "fisherexp",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "hydra-core",
    "omegaconf",
    "numpy",
    "scikit-learn",
    "transformers",
    "tokenizers",
)

TIMES = ("seconds", "cpu_seconds")  # metrics that are another number in every run


def provenance(overrides: list[str]) -> dict[str, Any]:
    """Command line, where it was given and where its modules lay, commit and dirty flag of the code, package versions,
    hardware."""
    return {
        "command": command(overrides),
        "overrides": overrides,
        "directory": os.getcwd(),
        "module_paths": module_paths(),
        "environment": {"FISHEREXP_DATA": os.environ.get("FISHEREXP_DATA")},
        "code": code_state(),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in PACKAGES},
        "hardware": hardware(),
    }


def command(overrides: list[str]) -> str:
    """The line that makes this run again, as typed in a shell."""
    import shlex

    program = "python run.py" if Path("run.py").is_file() else "fisherexp run"
    return shlex.join([*program.split(), *overrides])


def module_paths() -> list[str]:
    """Folders in which Python looks for modules, but those of the interpreter and of what is installed."""
    own = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)}
    found = [os.path.realpath(entry) for entry in sys.path if entry == "" or os.path.isdir(entry)]
    return list(dict.fromkeys(entry for entry in found if not any(Path(entry).is_relative_to(o) for o in own)))


@functools.cache  # the code a process runs is the one it has imported
def code_state() -> dict[str, Any]:
    """Commit of the checkout the package lies in, and whether tracked files differ from it; None outside of git."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top) != root:  # an installed package inside somebody else's repository
        return {"commit": None, "dirty": None}
    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(status)}


def hardware() -> dict[str, Any]:
    """Processor, cores this process may use, and GPU if torch sees one."""
    import torch

    from fisherexp.runs.threads import available_cores

    return {
        "machine": platform.machine(),
        "cores": available_cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


@functools.cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

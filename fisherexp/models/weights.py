"""Weights from elsewhere into a network: what fits is taken, only a head may stay new."""

from collections.abc import Mapping

from torch import Tensor, nn

# What holds the weights in files that also hold other things: Lightning's, this project's, the usual ones.
WRAPPERS = ("state_dict", "model_state_dict", "model")
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
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"the weights do not fit this model: nothing for {', '.join(wrong[:3])}{more}")
    model.load_state_dict(own | best)
    return kept


def _renamed(tensors: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """Names as they are within the model: without a wrapper's prefix, or within the backbone."""
    if place.startswith("backbone."):
        return {f"{place}{name}": tensor for name, tensor in tensors.items()}
    return {name.removeprefix(place): tensor for name, tensor in tensors.items() if name.startswith(place)}

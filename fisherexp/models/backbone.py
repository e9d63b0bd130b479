"""What a Classifier asks of the network that makes its features."""

from collections.abc import Sequence
from typing import Any

from torch import nn


class Backbone(nn.Module):
    """Maps normalized inputs to features. Any module with `num_features` will do; one of this class is asked more.

    num_features: d, the width of the features.
    stage_ends: paths of the modules at whose outputs its stages end, in order; empty where it has none to name.
    mean, std: constants with which its inputs are normalized, one a channel, for intensities in [0, 1]; None where
        they are those of the data.
    """

    num_features: int
    stage_ends: Sequence[str] = ()
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def initialize(self, head: nn.Linear) -> None:
        """Change the weights that a new, trained head begins with; by default they stay."""

    def origin(self) -> dict[str, Any]:
        """Of weights that came with it, for the record: plain containers, 'text' for the reader; by default none."""
        return {}


def origin_of(model: nn.Module) -> dict[str, Any]:
    """Of the weights that a network came with, as its backbone says; empty of a new one."""
    backbone = dict(model.named_children()).get("backbone")
    return backbone.origin() if isinstance(backbone, Backbone) else {}

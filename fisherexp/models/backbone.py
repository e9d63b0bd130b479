"""What a Classifier asks of the network that makes its features."""

from collections.abc import Sequence

from torch import nn


class Backbone(nn.Module):
    """Maps normalized inputs to features. Any module with `num_features` will do; one of this class is asked more.

    num_features: d, the width of the features.
    stage_ends: paths of the modules at whose outputs its stages end, in order; empty where it has none to name.
    """

    num_features: int
    stage_ends: Sequence[str] = ()

    def initialize(self, head: nn.Linear) -> None:
        """Change the weights that a new, trained head begins with; by default they stay."""

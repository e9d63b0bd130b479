"""Unknown names: one line with the nearest, and the whole list where it is short."""

import pytest
from torch import nn

from fisherexp.curvature import fisher_diagonal


@pytest.mark.parametrize(("layers", "listed"), [(3, True), (40, False)])
def test_an_unknown_parameter_is_one_line_of_readable_length(layers, listed):
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(layers)))
    with pytest.raises(ValueError, match=r"parameter '1\.wieght' is unknown; did you mean '1\.weight'\?") as refused:
        fisher_diagonal(model, [], parameters=["1.wieght"])
    said = str(refused.value)
    assert all(name in said for name, _ in model.named_parameters()) == listed
    assert ("Nearest of 80: 1.weight, " in said) != listed
    assert len(said) < 200

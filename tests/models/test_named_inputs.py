"""Several inputs by name go through a Classifier as one input does, whoever calls it and however."""

import torch
from torch import Tensor, nn

from fisherexp.curvature import fisher_diagonal
from fisherexp.models.backbone import Backbone
from fisherexp.models.classifier import Classifier


class MaskedSum(Backbone):
    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        return self.layer(rows * mask)


class OfOneInput(nn.Module):
    """The same network, given rows that are masked already."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.layer, self.head = model.backbone.layer, model.head

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.layer(rows))


def test_mapping_keywords_and_one_input_agree():
    torch.manual_seed(0)
    model = Classifier(MaskedSum(), 3, 2)
    inputs = {"rows": torch.randn(5, 4), "mask": (torch.rand(5, 4) > 0.5).float()}
    wanted = OfOneInput(model)(inputs["rows"] * inputs["mask"])
    assert torch.equal(model(inputs), wanted)
    assert torch.equal(model(**inputs), wanted)
    assert not torch.equal(model(inputs | {"mask": torch.ones(5, 4)}), wanted)
    assert torch.equal(model.logits(model.features(inputs)), wanted)


def test_the_fisher_is_that_of_the_network_with_one_input():
    torch.manual_seed(0)
    model = Classifier(MaskedSum(), 3, 2)
    inputs = {"rows": torch.randn(5, 4), "mask": (torch.rand(5, 4) > 0.5).float()}
    targets = torch.tensor([0, 1, 1, 0, 1])
    one = fisher_diagonal(model, [(inputs, targets)])
    other = fisher_diagonal(OfOneInput(model), [(inputs["rows"] * inputs["mask"], targets)])
    torch.testing.assert_close(one.diagonal(), other.diagonal())

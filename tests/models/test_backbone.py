"""What a Classifier asks of a backbone, and the mode a network is looked at in."""

import pytest
import torch
from hydra.utils import get_class
from torch import nn

from fisherexp.catalogue import entries
from fisherexp.config.locations import target
from fisherexp.models.backbone import Backbone
from fisherexp.models.classifier import Classifier
from fisherexp.models.eval_mode import eval_mode
from fisherexp.models.heads import etf_head


def test_every_network_with_a_head_of_ours_is_a_backbone():
    made = [
        e for e in entries("model", []) if target(e.file) and "features" in e.attributes.get("provides", ["features"])
    ]
    made = [entry for entry in entries("model", []) if target(entry.file)]
    made = [entry for entry in made if "features" in entry.attributes.get("provides", ("features",))]
    assert len(made) > 8
    assert [e.name for e in made if not issubclass(get_class(target(e.file)), Backbone)] == []


class Doubles(Backbone):
    def initialize(self, head: nn.Linear) -> None:
        nn.init.constant_(head.weight, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_head_is_initialized_if_it_is_trained():
    assert (Classifier(Doubles(), 4, 3).head.weight == 2).all()
    frozen = etf_head(num_features=4, num_classes=3)
    before = frozen.weight.clone()
    assert torch.equal(Classifier(Doubles(), 4, 3, head=frozen).head.weight, before)
    assert not (Classifier(Backbone(), 4, 3).head.weight == 2).all()


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back_even_after_an_error(training):
    model = nn.Sequential(nn.Dropout()).train(training)
    with eval_mode(model):
        assert not model[0].training
    assert model[0].training == model.training == training
    with pytest.raises(IndexError), eval_mode(model):
        model[1]
    assert model[0].training == model.training == training

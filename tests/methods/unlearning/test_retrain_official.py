"""The official "retraining": what is new in it, and what is not."""

import torch

from fisherexp.config.explain import composed
from fisherexp.methods.unlearning.retrain_official import reset_children
from fisherexp.models.classifier import Classifier
from fisherexp.models.resnet import ResNet18
from fisherexp.runs.workbench import Workbench


def resnet() -> Classifier:
    torch.manual_seed(1)
    backbone = ResNet18(4, input_shape=(3, 32, 32))
    return Classifier(backbone, backbone.num_features, 10)


def test_only_the_last_layer_of_a_resnet_is_new():
    model, before = resnet(), resnet().state_dict()
    assert reset_children(model, seed=0) == ["head"]
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.weight", "head.bias"}
    torch.manual_seed(0)
    expected = torch.nn.Linear(32, 10)  # what the layer draws by itself
    assert torch.equal(model.head.weight, expected.weight)
    assert torch.equal(model.head.bias, expected.bias)


def test_it_is_a_warm_start_that_knows_what_it_should_not(tmp_path):
    """Frozen by a vanishing rate, features are the source's, and the head is not."""
    overrides = ["method=retrain_official", "model.width=4", "training.epochs=1", "method.training.epochs=1"]
    overrides += ["method.training.lr=1e-12", "method.training.milestones=[]", f"output_dir={tmp_path}", "progress=off"]
    bench = Workbench(composed(overrides))
    fit, source = bench.method("method"), bench.reference("source").tensors
    fit.model.load_state_dict(source)
    bench.fit(fit, tmp_path / "run", "fit")
    assert fit.outcome == {"new": ["head"]}
    for name, weight in fit.model.named_parameters():
        same = torch.allclose(weight, source[name], rtol=0, atol=1e-8)
        assert same == (not name.startswith("head."))

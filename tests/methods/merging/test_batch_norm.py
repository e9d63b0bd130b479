"""Statistics of BatchNorm of merged models: averaged, or those of one pass over the training images."""

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from fisherexp.config.explain import composed, explain
from fisherexp.methods.merging.batch_norm import recomputed
from fisherexp.models.classifier import Classifier
from fisherexp.models.mlp import MLP
from fisherexp.models.resnet import ResNet18
from fisherexp.models.small_cnn import SmallCNN
from fisherexp.runs.finished import finished
from fisherexp.runs.workbench import Workbench

SHAPE = (1, 8, 8)


def network(backbone) -> Classifier:
    torch.manual_seed(0)
    made = backbone()
    model = Classifier(made, made.num_features, 10).double().eval()
    for buffer in model.buffers():
        if buffer.dim() == 1:  # statistics far from those of any image
            buffer.copy_(3 + torch.rand(buffer.shape))
    return model


def parameters(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("sizes", [[20], [8, 8, 4]])
def test_statistics_are_those_of_the_images(sizes):
    """Of the first layer by hand; the mean of batches of different sizes is that of all images."""
    model, images = network(lambda: SmallCNN(6, input_shape=SHAPE)), torch.rand(20, *SHAPE, dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = recomputed(model, parameters(model), images.split(sizes))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    inputs = F.conv2d(model.normalize(images), state["backbone.layers.0.weight"], padding=1)
    variances = [batch.var((0, 2, 3)) * len(batch) / len(images) for batch in inputs.split(sizes)]
    torch.testing.assert_close(state["backbone.layers.1.running_mean"], inputs.mean((0, 2, 3)))
    torch.testing.assert_close(state["backbone.layers.1.running_var"], sum(variances))


def test_one_pass_of_equal_batches_is_what_torch_does_for_averaged_weights():
    model = network(lambda: ResNet18(8, input_shape=SHAPE))
    batches = torch.rand(4, 6, *SHAPE, dtype=torch.float64)
    state = recomputed(model, parameters(model), batches)
    update_bn(batches, model)
    expected = {n: tensor for n, tensor in model.state_dict().items() if "running" in n}
    assert len(expected) == 40  # 20 layers
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, msg=lambda m, n=name: f"{n}: {m}")


def test_a_batch_is_normalized_by_its_own_statistics():
    """With them in eval mode, what BatchNorm gives has the mean and variance of its scale and shift."""
    model, images = network(lambda: MLP([7], batch_norm=True, input_shape=SHAPE)), torch.rand(50, *SHAPE).double()
    state = recomputed(model, parameters(model), [images])
    seen = []
    model.backbone.layers[2].register_forward_hook(lambda layer, given, out: seen.append(out))
    functional_call(model, state, images)
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(7).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(seen[0].var(0), torch.ones(7).double(), atol=1e-2, rtol=0)


def test_without_batch_norm_there_are_no_statistics():
    model = network(lambda: MLP([5], input_shape=SHAPE))
    state = parameters(model)
    assert recomputed(model, state, [torch.rand(2, *SHAPE)]) is state


SMALL = [
    "model=mlp",
    "model.hidden=[12]",
    "model.batch_norm=true",
    "training.epochs=2",
    "training=small",
    "progress=off",
]


@pytest.mark.parametrize("method", ["average", "weight_matching", "ste_matching"])
def test_a_merged_model_has_the_statistics_that_were_asked_for(method, tmp_path):
    """Recomputed ones are those of the training images, of all tasks where there are several, under its own weights."""
    tasks = method == "average"
    options = [*SMALL, "scenario=tasks" if tasks else "scenario=none", f"method={method}", f"output_dir={tmp_path}"]
    found = {}
    for choice in ("average", "recompute"):
        bench = Workbench(composed([*options, f"method.batch_norm={choice}"]))
        found[choice], _ = finished(bench, tmp_path / choice)
    images = bench.setting.parts["every_task" if tasks else "train"].inputs
    for choice, merged in found.items():
        model, layer = merged.model, merged.model.backbone.layers[2]
        inputs = model.backbone.layers[:2](model.normalize(images))
        same = torch.allclose(layer.running_mean, inputs.mean(0), atol=1e-5)
        assert same == (choice == "recompute"), choice


@pytest.mark.parametrize(("method", "scenario"), [("bang", "tasks"), ("ste_matching", "none")])
def test_a_choice_that_does_not_exist_is_refused(method, scenario):
    (problem,) = explain([f"method={method}", f"scenario={scenario}", "method.batch_norm=recomputed"])
    assert str(problem).startswith("method.batch_norm=recomputed")
    assert "recompute" in str(problem)

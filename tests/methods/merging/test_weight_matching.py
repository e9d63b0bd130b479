"""Permutations leave a network's function alone, and matching finds them again."""

import itertools

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from fisherexp.config.explain import composed
from fisherexp.methods.merging.alignment import alignment
from fisherexp.methods.merging.merging import mean_of
from fisherexp.methods.merging.permutations import identity, permuted, sizes, specification
from fisherexp.methods.merging.weight_matching import agreement, barrier, distance, match
from fisherexp.models.classifier import Classifier
from fisherexp.models.mlp import MLP
from fisherexp.models.resnet import ResNet18
from fisherexp.models.small_cnn import SmallCNN
from fisherexp.models.vit import ViT
from fisherexp.models.wide_resnet import WideResNet
from fisherexp.runs.finished import finished
from fisherexp.runs.workbench import Workbench

SHAPE = (1, 8, 8)
MODELS = {
    "mlp": lambda: MLP([12, 9], input_shape=SHAPE),
    "mlp_batch_norm": lambda: MLP([12, 9], batch_norm=True, input_shape=SHAPE),
    "small_cnn": lambda: SmallCNN(6, input_shape=SHAPE),
    "resnet18": lambda: ResNet18(4, input_shape=SHAPE),
    "wide_resnet": lambda: WideResNet(16, 1, input_shape=SHAPE),
}


def network(name: str, seed: int = 0) -> Classifier:
    """With weights and statistics of BatchNorm that are all different."""
    torch.manual_seed(seed)
    backbone = MODELS[name]()
    model = Classifier(backbone, backbone.num_features, 10).double().eval()
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.dim() == 1:
            tensor.data.copy_(0.5 + torch.rand(tensor.shape))
    return model


def shuffled(state, spec, seed=1):
    drawn = torch.Generator().manual_seed(seed)
    return {which: torch.randperm(size, generator=drawn) for which, size in sizes(state, spec).items()}


def parameters(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_a_permuted_network_is_the_same_function(name):
    model, images = network(name), torch.rand(5, *SHAPE, dtype=torch.float64)
    spec, state = specification(model), model.state_dict()
    changed = permuted(state, spec, shuffled(state, spec))
    moved = [n for n in spec if not torch.equal(changed[n], state[n])]
    assert len(moved) == len(spec) - 1  # all but the head's bias
    assert {n for n, tensor in state.items() if tensor.dim()} - {"mean", "std"} == set(spec)
    torch.testing.assert_close(functional_call(model, changed, images), model(images))


@pytest.mark.parametrize("name", MODELS)
def test_matching_undoes_a_permutation(name):
    model = network(name)
    spec, state = specification(model), parameters(model)
    hidden = permuted(state, spec, shuffled(state, spec))
    found, _ = match(state, hidden, spec, seed=0)
    assert distance(state, permuted(hidden, spec, found)) < 1e-12


@pytest.mark.parametrize("name", MODELS)
def test_agreement_never_falls_and_distance_follows(name):
    first, second = parameters(network(name, 0)), parameters(network(name, 1))
    spec = specification(network(name))
    found, agreements = match(first, second, spec, seed=0)
    before = agreement(first, second)
    assert before < agreements[0]
    assert agreements == sorted(agreements)
    matched = permuted(second, spec, found)
    norms = [sum(tensor.square().sum().item() for tensor in state.values()) for state in (second, matched)]
    assert norms[0] == pytest.approx(norms[1])
    assert distance(first, matched) ** 2 == pytest.approx(distance(first, second) ** 2 - 2 * (agreements[-1] - before))


def test_one_hidden_layer_is_matched_optimally():
    """With a single permutation the assignment is exact: compared with trying all of them."""
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(Classifier(MLP([5], input_shape=(1, 2, 2)), 5, 3).double())
    first, second = map(parameters, models)
    spec = specification(models[0])
    (which,) = identity(second, spec)
    every = [
        agreement(first, permuted(second, spec, {which: torch.tensor(p)})) for p in itertools.permutations(range(5))
    ]
    _, agreements = match(first, second, spec, seed=0)
    assert agreements[-1] == pytest.approx(max(every))


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_alignment_is_one_for_equal_networks_and_small_for_others(threshold):
    first, second = parameters(network("mlp", 0)), parameters(network("mlp", 1))
    assert alignment(first, first, threshold) == pytest.approx(1)
    assert abs(alignment(first, second, threshold)) < 0.3


def test_permuting_leaves_singular_values_alone():
    model = network("mlp")
    spec, state = specification(model), parameters(model)
    changed = permuted(state, spec, shuffled(state, spec))
    for name, tensor in state.items():
        if tensor.dim() == 2:
            torch.testing.assert_close(torch.linalg.svdvals(changed[name]), torch.linalg.svdvals(tensor))


def test_barrier_is_the_height_over_the_line_between_the_ends():
    assert barrier([1.0, 2.0, 3.0]) == 0
    assert barrier([0.0, 5.0, 2.0]) == 4
    assert barrier([2.0, 0.0, 2.0]) == 0


def test_three_networks_are_evaluated_together_and_in_pairs(tmp_path):
    """A matched network is the same function, so every line ends at the loss of a network as it was trained."""
    options = ["model=mlp", "model.hidden=[12]", "training.epochs=3", "scenario=none", "training=small", "progress=off"]
    bench = Workbench(composed([*options, "method=weight_matching", "method.others=2", f"output_dir={tmp_path}"]))
    method, _ = finished(bench, tmp_path / "run")
    train, model, losses = bench.setting.parts["train"], bench.classifier("evaluate").eval(), []
    states = [bench.reference("source").tensors, *method.given["other_seeds"]]
    with torch.no_grad():
        for state in states:
            logits = functional_call(model, dict(state), train.inputs)
            losses.append(F.cross_entropy(logits, train.targets).item())
        mean = functional_call(model, mean_of([{n: s[n] for n in parameters(model)} for s in states]), train.inputs)
        merged = method.model(train.inputs)
    curve = method.outcome["curve"]
    ends = {"naive": losses[:2], "matched": losses[:2], "others": losses[1:]}
    assert {kind: [line[0], line[-1]] for kind, line in curve.items()} == {
        kind: pytest.approx(pair, rel=1e-4) for kind, pair in ends.items()
    }
    for kind, logits in (("naive", mean), ("matched", merged)):
        accuracy = 100 * (logits.argmax(1) == train.targets).double().mean().item()
        assert method.outcome["mean_accuracy"][kind] == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (lambda: ViT(dim=6, depth=1, input_shape=SHAPE), "not in ViT"),
        (lambda: ResNet18(8, norm="group", input_shape=SHAPE), "model.norm=batch"),
    ],
)
def test_what_cannot_be_matched_is_refused_in_one_line(backbone, message):
    made = backbone()
    with pytest.raises(ValueError, match=message) as caught:
        specification(Classifier(made, made.num_features, 10))
    assert "\n" not in str(caught.value)

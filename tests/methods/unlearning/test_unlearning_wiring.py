"""What each class of unlearning makes of its options: optimizer, batches, gradients, weights, against plain autograd.

The formulas have tests of their own, one file a method; here they are written out again, and it is looked at which
samples, which labels and which of its options a class hands to them.
"""

import copy
import dataclasses
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.config.explain import composed
from fisherexp.curvature import fisher_diagonal
from fisherexp.data.batch import Batch, joined
from fisherexp.methods.importance import FisherPass, Importance
from fisherexp.methods.unlearning.amnesiac import Amnesiac
from fisherexp.methods.unlearning.assd import ASSD
from fisherexp.methods.unlearning.bad_teacher import BadTeacher
from fisherexp.methods.unlearning.batches import shuffled
from fisherexp.methods.unlearning.finetune import Finetune
from fisherexp.methods.unlearning.fisher_forgetting import FisherForgetting, noise_of
from fisherexp.methods.unlearning.gradient_ascent import GradientAscent
from fisherexp.methods.unlearning.gradient_difference import GradientDifference
from fisherexp.methods.unlearning.inverted_hinge import InvertedHinge
from fisherexp.methods.unlearning.negated_task_vector import NegatedTaskVector
from fisherexp.methods.unlearning.neggrad_plus import NeggradPlus
from fisherexp.methods.unlearning.ntk_scrub import NTKScrub
from fisherexp.methods.unlearning.retrain_official import RetrainOfficial
from fisherexp.methods.unlearning.salun import Salun
from fisherexp.methods.unlearning.satimp import Satimp
from fisherexp.methods.unlearning.scrub import SCRUB
from fisherexp.methods.unlearning.unsir import UNSIR
from fisherexp.runs.workbench import Workbench
from fisherexp.seeds import derive, generator

TINY = ["model=mlp", "model.hidden=[6]", "data.train_size=90", "threads=1", "progress=off"]
FORGOTTEN = 3


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Workbench:
    return Workbench(composed([*TINY, "trainer=cpu", f"output_dir={tmp_path_factory.mktemp('unlearning')}"]))


@pytest.fixture
def setting(bench):
    return dataclasses.replace(bench.setting, seed=5)


@pytest.fixture
def model(bench):
    torch.manual_seed(1)
    return bench.method("source.method").model


class Net(nn.Module):
    """Four numbers, three classes, float64; in train mode it answers with the statistics of the batch."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        layers = {"body": nn.Linear(4, 5), "norm": nn.BatchNorm1d(5), "tanh": nn.Tanh(), "head": nn.Linear(5, 3)}
        for name, layer in layers.items():
            self.add_module(name, layer.double())
        nn.init.uniform_(self.norm.running_mean, -0.5, 0.5)

    def forward(self, x):
        return self.head(self.tanh(self.norm(self.body(x))))


torch.manual_seed(2)
INPUTS, LABELS = torch.randn(8, 4, dtype=torch.float64), torch.randint(3, (8,))
FORGET = torch.tensor([True, False, False, True, False, True, False, False])


def gradients(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()))


# --- how they train ------------------------------------------------------------------------------------------------

SGD = {"epochs": 2, "lr": 0.03, "momentum": 0.7, "weight_decay": 0.02}
ADAM = {"epochs": 2, "lr": 0.03, "weight_decay": 0.02}
SCRUB_OPTIONS = {"max_epochs": 1, "gamma": 1.0, "alpha": 1.0, "temperature": 1.0, "rewind": False}
UNSIR_OPTIONS = {"images": 2, "copies": 2, "per_class": 2, "noise_weight": 0.1, "noise_steps": 3, "noise_lr": 0.1}
TRAINED = [
    (Finetune, "SGD", SGD),
    (GradientAscent, "SGD", SGD),
    (NeggradPlus, "SGD", SGD | {"alpha": 0.5}),
    (SCRUB, "SGD", SGD | SCRUB_OPTIONS | {"forget_batch_size": 4, "retain_batch_size": 4}),
    (Salun, "SGD", SGD | {"share": 0.5, "order": "mixed", "batch_size": 4}),
    (Amnesiac, "Adam", ADAM | {"batch_size": 4}),
    (BadTeacher, "Adam", ADAM | {"retain_share": 0.3, "temperature": 1.0, "official": False, "batch_size": 4}),
    (UNSIR, "Adam", UNSIR_OPTIONS | {"lr": 0.03, "weight_decay": 0.02, "batch_size": 4}),
    (InvertedHinge, "AdamW", ADAM | {"retain_weight": 1.0}),
    (Satimp, "AdamW", ADAM | {"saturation": 1.0, "importance": 1.0, "retain_weight": 1.0}),
    (GradientDifference, "AdamW", ADAM | {"forget_weight": 1.0, "retain_weight": 1.0}),
    (NegatedTaskVector, "AdamW", ADAM | {"scale": 1.0}),
]


@pytest.mark.parametrize(("cls", "kind", "options"), TRAINED, ids=[cls.__name__ for cls, *_ in TRAINED])
def test_steps_are_those_of_the_optimizer_with_the_given_options(cls, kind, options):
    """Weights after four steps, of two epochs: rate, momentum and decay as given, the rate constant."""
    method, plain = cls(nn.Linear(4, 3).double(), **options), nn.Linear(4, 3).double()
    plain.load_state_dict(method.model.state_dict())
    method.steps_per_epoch = 2
    made = method.configure_optimizers()
    given = {"lr": 0.03, "weight_decay": 0.02} | ({"momentum": 0.7} if kind == "SGD" else {})
    expected = getattr(torch.optim, kind)(plain.parameters(), **given)
    for _ in range(4):
        for model, optimizer in ((method.model, made["optimizer"]), (plain, expected)):
            optimizer.zero_grad()
            F.cross_entropy(model(INPUTS), LABELS).backward()
            optimizer.step()
        made["lr_scheduler"]["scheduler"].step()
    assert torch.equal(method.model.weight, plain.weight)


def test_batches_are_shuffled_and_augmented():
    """The control of every method that asks for them: what it wants of the loader."""
    asked = SimpleNamespace(data=SimpleNamespace(batch_size=4), loader_of=lambda samples, **options: options)
    expected = {"shuffle": True, "augment": True, "batch_size": 3, "drop_last": False}
    assert shuffled(asked, range(8), 3) == expected
    assert shuffled(asked, range(7), 3) == expected | {"drop_last": True}  # else a batch of one
    assert shuffled(asked, range(9), None) == expected | {"batch_size": None, "drop_last": True}


# --- teachers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"temperature": 2.5}, {"official": True}], ids=str)
def test_bad_teacher(options):
    """Gradient of the loss: retained samples pull to the source, forgotten ones to the untrained model."""
    given = {"retain_share": 0.3, "temperature": 1.0, "official": False} | options
    method = BadTeacher(Net(0), **given, **ADAM, batch_size=4)
    method.teacher.load_state_dict(Net(1).state_dict())
    method.untrained.load_state_dict(Net(2).state_dict())
    method.on_train_batch_start()
    student, source, new, t = Net(0), Net(1).eval(), Net(2).eval(), given["temperature"]
    wanted = torch.where(FORGET[:, None], new(INPUTS), source(INPUTS)).detach()
    loss = F.kl_div((student(INPUTS) / t).log_softmax(1), (wanted / t).softmax(1), reduction="batchmean")
    loss = loss / 3 if given["official"] else loss
    found = method.loss(Batch(INPUTS, LABELS, tags={"forgotten": FORGET}))
    torch.testing.assert_close(gradients(found, method.model), gradients(loss, student))


# --- one edit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 5])
def test_fisher_forgetting(setting, seed):
    """Every weight: its mean and √variance times the numbers drawn from the run's seed, in the order of the weights."""
    torch.manual_seed(3)
    net = nn.Sequential(OrderedDict(body=nn.Linear(4, 5), head=nn.Linear(5, 3))).double()
    method = FisherForgetting(copy.deepcopy(net), alpha=1e-3, importance=Importance(batch_size=8))
    method.batches(dataclasses.replace(setting, seed=seed))
    assert method.forgotten == [FORGOTTEN]
    method.forgotten = [1]
    method.fisher = fisher_diagonal(net, [(INPUTS, LABELS)], labels="empirical")
    method.edit()
    stream = generator("fisher_forgetting", seed)
    for name, weight in method.model.named_parameters():
        before = net.get_parameter(name).detach()
        mean, variance = noise_of(before, method.fisher[name], 1e-3, name.startswith("head."), [1])
        torch.testing.assert_close(
            weight.detach(), mean + variance.sqrt() * torch.randn(weight.shape, generator=stream)
        )


def test_ntk_scrub_sums_over_batches_in_eval_mode():
    """JᵀJ and Jᵀ(y - f) of each part, of a network that is handed over in train mode."""
    method, plain = NTKScrub(Net(), weight_decay=0.1, batch_size=4, max_weights=100), Net().eval()
    expected = {part: {name: torch.zeros_like(t) for name, t in sums.items()} for part, sums in method.sums.items()}
    for rows in (FORGET.nonzero()[:2, 0], FORGET.nonzero()[2:, 0], (~FORGET).nonzero()[:, 0]):
        forget = FORGET[rows]
        method.model.train()
        method.training_step(Batch(INPUTS[rows], LABELS[rows], tags={"forgotten": forget}), 0)
        for x, y in zip(INPUTS[rows], LABELS[rows], strict=True):
            logits = plain(x[None])[0]
            wanted = F.one_hot(y, 3) - logits.detach()
            slopes = torch.stack([torch.cat([g.flatten() for g in gradients_of(z, plain)]) for z in logits])
            sums = expected["forget" if forget.all() else "retain"]
            sums["gram"] += slopes.T @ slopes
            sums["moment"] += slopes.T @ wanted
    torch.testing.assert_close(method.sums, expected)


def gradients_of(value, model):
    return torch.autograd.grad(value, list(model.parameters()), retain_graph=True)


@pytest.mark.parametrize("seed", [0, 5])
def test_retrain_official(bench, setting, model, tmp_path, seed):
    """A new head from the run's seed, then the retained samples alone."""
    training = bench.method("source.method").training_recipe
    method = RetrainOfficial(model, dataclasses.replace(training, epochs=1))
    before = copy.deepcopy(model.state_dict())
    assert FORGOTTEN not in joined(list(method.batches(dataclasses.replace(setting, seed=seed)))).targets
    method._trainer = SimpleNamespace(ckpt_path=None)
    method.on_fit_start()
    torch.manual_seed(derive("retrain_official", seed))
    head = nn.Linear(model.head.in_features, 10)
    for name, tensor in model.state_dict().items():
        new = name.startswith("head.")
        assert torch.equal(tensor, head.state_dict()[name.removeprefix("head.")] if new else before[name])


# --- importances ---------------------------------------------------------------------------------------------------


def test_sampled_labels_are_of_the_runs_seed(setting, model):
    """ASSD's two passes, and the one pass of all others: what their labels are drawn from."""
    assd = ASSD(model, Importance(labels="sampled"))
    assd.batches(setting)
    assd.on_train_start()
    one = FisherPass(model, Importance(labels="sampled"))
    one.batches(setting)
    one.on_train_start()
    streams = {"retain": assd.accumulators["retain"], "forget": assd.accumulators["forget"], "train": one.accumulator}
    for part, accumulator in streams.items():
        assert accumulator.generator.initial_seed() == derive("labels", 5, part)


def test_a_fisher_pass_counts_a_sample_by_its_weight():
    method, net, weights = FisherPass(Net().eval(), Importance()), Net().eval(), torch.arange(8.0).double()
    method.accumulator = method.importance.accumulator(method.model, 0)
    method.training_step(Batch(INPUTS, LABELS, weights), 0)
    method.on_train_end()
    total = [torch.zeros_like(p) for p in net.parameters()]
    for x, y, w in zip(INPUTS, LABELS, weights, strict=True):
        found = gradients(F.cross_entropy(net(x[None]), y[None]), net)
        total = [t + w * g.square() / 28 for t, g in zip(total, found, strict=True)]
    for (name, _), expected in zip(net.named_parameters(), total, strict=True):
        torch.testing.assert_close(method.fisher[name], expected)


# --- SalUn ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def salun(setting, model):
    method = Salun(model, share=0.2, order="mixed", **SGD, batch_size=4)
    return method, method.batches(setting)


def test_salun_frees_what_the_forgotten_samples_move_most(salun, setting, model):
    method, _ = salun
    method.on_train_start()
    total, parts = [torch.zeros_like(p) for p in model.parameters()], setting.parts["forget"]
    model.eval()
    for rows in torch.arange(len(parts)).split(4):
        found = gradients(F.cross_entropy(model(parts.inputs[rows]), parts.targets[rows]), model)
        total = [t + g for t, g in zip(total, found, strict=True)]
    sizes = torch.cat([t.abs().flatten() for t in total])
    free = torch.cat([mask.flatten() for mask in method.masks.values()])
    assert free.sum() == int(0.2 * len(sizes))
    assert sizes[free].min() >= sizes[~free].max() * (1 - 1e-5)


def test_salun_draws_labels_anew_in_every_epoch_and_batch(salun, monkeypatch):
    method, loader = salun
    batch, seen = joined(list(loader)), []
    method.objective = SimpleNamespace(loss=lambda outputs, targets, weights: seen.append(targets) or outputs.sum())
    for epoch, number in ((0, 0), (0, 1), (1, 0), (0, 0)):
        monkeypatch.setattr(Salun, "current_epoch", epoch)
        method.training_step(batch, number)
    forget = batch.tags["forgotten"]
    assert all(torch.equal(targets[~forget], batch.targets[~forget]) for targets in seen)
    first, other_batch, other_epoch, again = (targets[forget] for targets in seen)
    assert torch.equal(first, again)
    assert not torch.equal(first, other_batch)
    assert not torch.equal(first, other_epoch)


# --- UNSIR ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"noise_weight": 2.0}, {"noise_lr": 0.01}, {"noise_steps": 1}], ids=str)
def test_unsir_learns_noise(setting, model, options):
    given = UNSIR_OPTIONS | options
    method = UNSIR(model, **given, lr=0.1, weight_decay=0.0, batch_size=4)
    method.batches(setting)
    found = method.learned(method.start_noise)
    noise, labels = method.start_noise.clone().requires_grad_(), torch.full((2,), FORGOTTEN)
    optimizer = torch.optim.Adam([noise], lr=given["noise_lr"])
    model.eval()
    for _ in range(given["noise_steps"]):
        optimizer.zero_grad()
        logits = model(noise * model.std + model.mean)
        loss = given["noise_weight"] * noise.square().sum() / 2 - F.cross_entropy(logits, labels)
        loss.backward(inputs=[noise])
        optimizer.step()
    torch.testing.assert_close(found, noise.detach())


def test_unsir_impairs_with_its_noise(setting, model):
    """Place-holders become noise with the label of its class; the others are as they were."""
    method = UNSIR(model, **UNSIR_OPTIONS, lr=0.1, weight_decay=0.0, batch_size=4)
    method.batches(setting)
    method.noise = torch.randn(2, 1, 8, 8)
    images, targets = setting.parts["retain"].inputs[:5], setting.parts["retain"].targets[:5]
    number = torch.tensor([-1, 1, -1, 0, 1])
    found = method.loss(Batch(images, targets, tags={"noise": number}))
    shown, labels = images / 255, targets.clone()
    for i in (1, 3, 4):
        shown[i], labels[i] = method.noise[number[i]] * model.std + model.mean, FORGOTTEN
    loss = F.cross_entropy(model(shown), labels)
    torch.testing.assert_close(gradients(found, model), gradients(loss, model))

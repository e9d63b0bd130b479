"""What the classes with a memory make of their options: gradients, and what is remembered, by plain autograd."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.adapters import adapted_layers
from fisherexp.data.tensors import TensorSet
from fisherexp.methods.continual_learning.alignguard_lora import AlignGuardLoRA
from fisherexp.methods.continual_learning.cstrl import CSTRL
from fisherexp.methods.continual_learning.ewc import EWC
from fisherexp.methods.continual_learning.l2_sp import L2SP
from fisherexp.methods.continual_learning.lora_ewc import LoRAEWC
from fisherexp.methods.continual_learning.mas import MAS
from fisherexp.methods.continual_learning.online_ewc import OnlineEWC
from fisherexp.methods.continual_learning.rows import row_fisher
from fisherexp.methods.continual_learning.sequential_lora import SequentialLoRA
from fisherexp.methods.continual_learning.si import SI
from fisherexp.methods.importance import Importance
from fisherexp.methods.recipe import Recipe
from fisherexp.objectives.classification import Classification
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import derive

torch.manual_seed(0)


class Net(nn.Module):
    """Four numbers, three classes, float64. Dropout tells the modes apart."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.body, self.drop, self.head = nn.Linear(4, 5).double(), nn.Dropout(0.5), nn.Linear(5, 3).double()

    def forward(self, x):
        return self.head(self.drop(torch.tanh(self.body(x))))


def samples(count):
    return TensorSet(torch.randn(count, 4).double(), torch.randint(3, (count,)))


DATA = SimpleNamespace(
    objective=Classification(),
    batch_size=64,
    loader=lambda samples, batch_size=64, **_: [
        samples.subset(rows).batch for rows in torch.arange(len(samples)).split(batch_size)
    ],
)
TASKS = [Setting(DATA, {"train": samples(11), "test": samples(9)}, (), None, seed=seed) for seed in (4, 5)]
BATCH = samples(6).batch
TRAINING = Recipe(epochs=4, optimizer="sgd", lr=0.05, momentum=0.0, weight_decay=0.0)
ANCHORED = {
    EWC: ({"importance": Importance()}, 0.5),
    OnlineEWC: ({"importance": Importance(), "gamma": 0.5}, 0.5),
    CSTRL: ({"importance": Importance()}, 1.0),
    L2SP: ({"head": "shared", "beta": 0.0}, 0.5),
    MAS: ({"gradients": "per_sample", "batch_size": 4}, 1.0),
    SI: ({"xi": 0.1, "gradient": "task"}, 1.0),
}


def made(cls, **options):
    return cls(Net().eval(), TRAINING, **{"lambda_": 0.7} | ANCHORED[cls][0] | options)


def gradients(loss, model):
    names, weights = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, weights, retain_graph=True), strict=True))


def anchor(seed):
    drawn = torch.Generator().manual_seed(seed)
    shapes = {name: p.shape for name, p in Net().named_parameters()}
    return {
        kind: {name: torch.rand(s, generator=drawn, dtype=torch.float64) for name, s in shapes.items()}
        for kind in ("omega", "anchor")
    }


# --- the penalty ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("schedule", "epoch", "share"), [("constant", 3, 0.7), ("linear_floor", 5, 0.525)])
@pytest.mark.parametrize("cls", ANCHORED, ids=lambda cls: cls.__name__)
def test_the_penalty_pulls_to_every_anchor(cls, schedule, epoch, share, monkeypatch):
    """2 c λ Σ_k Ω_k (θ - θ*_k) beside the gradient of the task; λ falls by epochs of the task at hand."""
    method = made(cls, schedule=schedule)
    monkeypatch.setattr(cls, "current_epoch", epoch)
    method.memory["anchors"] = [anchor(1), anchor(2)]
    found = gradients(method.loss(BATCH), method.model)
    plain, c = Net().eval(), ANCHORED[cls][1]
    expected = gradients(F.cross_entropy(plain(BATCH.inputs), BATCH.targets), plain)
    for name, p in plain.named_parameters():
        pull = sum(one["omega"][name] * (p.detach() - one["anchor"][name]) for one in method.memory["anchors"])
        torch.testing.assert_close(found[name], expected[name] + 2 * c * share * pull)


def test_the_floor_of_the_strength(monkeypatch):
    monkeypatch.setattr(EWC, "current_epoch", 7)
    assert made(EWC, schedule="linear_floor", floor=0.4).stiffness == pytest.approx(0.2)  # not 0.7 / 4
    assert made(EWC, schedule="linear_floor", floor=0.1).stiffness == pytest.approx(0.7 / 8)


@pytest.mark.parametrize("head", ["shared", "new"])
def test_l2_sp_ties_a_shared_head_and_lets_a_new_one_decay(head):
    method = made(L2SP, head=head, beta=0.3)
    method.finish_task(TASKS[0])
    with torch.no_grad():
        for p in method.model.parameters():
            p.add_(0.1)
    found, plain = gradients(method.loss(BATCH), method.model), method.model
    expected = gradients(F.cross_entropy(plain(BATCH.inputs), BATCH.targets), plain)
    for name, p in plain.named_parameters():
        decays = head == "new" and name.startswith("head.")
        torch.testing.assert_close(found[name], expected[name] + (0.3 * p.detach() if decays else 0.7 * 0.1))


# --- what is remembered --------------------------------------------------------------------------------------------


def squared(model, part):
    """Mean over samples of the squared gradient, by the true labels."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for x, y in zip(part.inputs, part.targets, strict=True):
        for name, g in gradients(F.cross_entropy(model(x[None]), y[None]), model).items():
            total[name] += g.square() / len(part)
    return total


def sensitive(model, part, size):
    """Mean over samples of |∂ mean ||f||² / ∂θ| of groups of `size`."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for x in part.inputs.split(size):
        for name, g in gradients(model(x).square().sum(1).mean(), model).items():
            total[name] += len(x) * g.abs() / len(part)
    return total


def after_two_tasks(method):
    """Weights at the end of each of two tasks; the model is in train mode when it is told."""
    ends = []
    for number, task in enumerate(TASKS):
        with torch.no_grad():
            for p in method.model.parameters():
                p.add_(0.2 * number)
        ends.append(Net().eval())
        ends[-1].load_state_dict(method.model.state_dict())
        method.memory["task"] = number
        method.model.train()
        method.finish_task(task)
        assert method.model.training
    return ends


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values)


@pytest.mark.parametrize("cls", [EWC, CSTRL], ids=lambda cls: cls.__name__)
def test_ewc_keeps_the_fisher_of_every_task(cls):
    method = made(cls)
    ends = after_two_tasks(method)
    assert len(method.memory["anchors"]) == 2
    for one, model, task in zip(method.memory["anchors"], ends, TASKS, strict=True):
        same(one["omega"], squared(model, task.parts["train"]))
        same(one["anchor"], dict(model.named_parameters()))


def test_sampled_labels_are_of_the_tasks_seed_and_number():
    method = made(EWC, importance=Importance(labels="sampled"))
    (first, second), anchors = after_two_tasks(method), method.memory["anchors"]
    for number, (model, task) in enumerate(zip((first, second), TASKS, strict=True)):
        accumulator = method.importance.accumulator(model, derive("labels", task.seed, number))
        accumulator.update(task.parts["train"].inputs, task.parts["train"].targets)
        same(anchors[number]["omega"], dict(accumulator.result().items()))


def test_online_ewc_lets_the_old_fisher_fade():
    method = made(OnlineEWC, gamma=0.3)
    first, second = after_two_tasks(method)
    old, new = squared(first, TASKS[0].parts["train"]), squared(second, TASKS[1].parts["train"])
    (one,) = method.memory["anchors"]
    same(one["omega"], {name: 0.3 * old[name] + new[name] for name in new})
    same(one["anchor"], dict(second.named_parameters()))


@pytest.mark.parametrize(("kind", "size"), [("per_sample", 4), ("batch_mean", 4), ("batch_mean", 64)])
def test_mas_adds_up_sensitivities(kind, size):
    method = made(MAS, gradients=kind, batch_size=size)
    ends, size = after_two_tasks(method), 1 if kind == "per_sample" else size
    old, new = (sensitive(model, task.parts["train"], size) for model, task in zip(ends, TASKS, strict=True))
    (one,) = method.memory["anchors"]
    same(one["omega"], {name: old[name] + new[name] for name in new})
    same(one["anchor"], dict(ends[1].named_parameters()))


@pytest.mark.parametrize("gradient", ["task", "total"])
@pytest.mark.parametrize("xi", [0.1, 0.01])
def test_si_sums_its_path_task_by_task(gradient, xi):
    """-Σ g Δθ over three steps of SGD, of the task's own gradient or of all of it, anew in each task."""
    method = made(SI, xi=xi, gradient=gradient)
    method.on_train_start()
    total = {name: torch.zeros_like(p) for name, p in method.model.named_parameters()}
    for task in TASKS:
        optimizer = torch.optim.SGD(method.model.parameters(), 0.05)
        batch, start = task.parts["train"].batch, {n: p.detach().clone() for n, p in method.model.named_parameters()}
        path = {name: torch.zeros_like(p) for name, p in start.items()}

        def closure(batch=batch, optimizer=optimizer):
            optimizer.zero_grad()
            method.loss(batch).backward()

        for _ in range(3):
            own = F.cross_entropy(method.model(batch.inputs), batch.targets)
            slopes = gradients(own if gradient == "task" else method.loss(batch), method.model)
            before = {name: p.detach().clone() for name, p in method.model.named_parameters()}
            method.optimizer_step(0, 0, optimizer, closure)
            for name, p in method.model.named_parameters():
                path[name] -= slopes[name] * (p.detach() - before[name])
        same(method.memory["path"], path)
        method.finish_task(task)
        method.begin_task()
        for name, p in method.model.named_parameters():
            total[name] += path[name].clamp(min=0) / ((p.detach() - start[name]).square() + xi)
        same(method.memory["anchors"][0]["omega"], total)


# --- low-rank updates ----------------------------------------------------------------------------------------------


def lora(cls, **options):
    method = cls(Net().eval(), TRAINING, rank=2, alpha=6.0, lr=0.3, **options)
    method.begin_task()
    with torch.no_grad():
        for layer in adapted_layers(method.model).values():
            for factor in (layer.adapters[0].up, layer.adapters[0].down):
                factor.copy_(torch.rand_like(factor))
    return method


def test_a_low_rank_update_has_the_scale_and_the_rate_it_is_given():
    method, plain = lora(SequentialLoRA), Net()
    assert method.configure_optimizers()["optimizer"].param_groups[0]["lr"] == 0.3
    for name, layer in adapted_layers(method.model).items():
        (adapter,) = layer.adapters
        expected = plain.get_submodule(name).weight + 6.0 / 2 * adapter.up @ adapter.down
        torch.testing.assert_close(layer.weight, expected)
    method.finish_task(TASKS[0])
    assert method.configure_optimizers()["optimizer"].param_groups[0]["lr"] == TRAINING.lr


def test_lora_ewc_weighs_the_update_by_the_fisher():
    method = lora(LoRAEWC, importance=Importance(), lambda_=0.7, gamma=0.5)
    one = anchor(1)
    method.memory["anchors"] = [one]
    layers, plain = adapted_layers(method.model), Net()
    changes = {name: layer.weight - plain.get_submodule(name).weight for name, layer in layers.items()}
    expected = sum((one["omega"][f"{name}.weight"] * change.square()).sum() for name, change in changes.items())
    torch.testing.assert_close(method.penalty(), expected)
    loss = DATA.objective.loss(method.model(BATCH.inputs), BATCH.targets)
    torch.testing.assert_close(method.loss(BATCH), loss + 0.35 * expected)


GUARD = {"split": "two_adapters", "share": 0.4, "damping": "rows", "stabilizer": "identity", "importance": Importance()}
GUARD |= {"lambda_": 2.0, "lambda_t": 0.5, "lambda_nc": 3.0, "mix": 0.3, "beta": 1.5, "tau": 0.2}


@pytest.mark.parametrize(
    "options", [{}, {"damping": "diagonal"}, {"stabilizer": "diagonal"}, {"split": "mask"}, {"split": "eig"}], ids=str
)
def test_alignguard_weighs_its_terms(options):
    """All four of them, written out for every layer."""
    given = GUARD | options
    method = lora(AlignGuardLoRA, **given)
    layers, plain, drawn = adapted_layers(method.model), Net(), torch.Generator().manual_seed(2)
    rows, diagonal, parts, total = {}, {}, {}, 0.0
    for name, layer in layers.items():
        n, m = layer.frozen_weight.shape
        rows[name], diagonal[f"{name}.weight"] = torch.rand(n, n, generator=drawn).double(), torch.rand(n, m).double()
        basis = torch.linalg.qr(torch.rand(n, 2, generator=drawn).double())[0]
        parts[name] = basis if given["split"] == "eig" else torch.rand(n, m, generator=drawn) < 0.4
        changes = [adapter.up @ adapter.down * 3.0 for adapter in layer.adapters]
        if given["split"] == "two_adapters":
            with torch.no_grad():
                layer.adapters[1].up.copy_(torch.rand(n, 2, generator=drawn))
            a, t = changes[0], layer.adapters[1].up @ layer.adapters[1].down * 3.0
        else:
            (change,) = changes
            a = basis @ basis.T @ change if given["split"] == "eig" else change * parts[name]
            t = change - a
        f, weight = diagonal[f"{name}.weight"], plain.get_submodule(name).weight
        aligned = (a * (rows[name] @ a)).sum() if given["damping"] == "rows" else (f * a**2).sum()
        rest = ((f if given["stabilizer"] == "diagonal" else 1.0) * t**2).sum()
        both = ((1 + 1.5 * torch.sigmoid(weight.abs() - 0.2)) * (a * t).abs()).sum()
        cosine = (a * t).sum() ** 2 / ((a**2).sum() * (t**2).sum())
        total = total + 2.0 * aligned + 0.5 * rest + 3.0 * (0.3 * both + 0.7 * cosine)
    method.memory |= {"rows": rows, "diagonal": diagonal, "parts": parts}
    loss = DATA.objective.loss(method.model(BATCH.inputs), BATCH.targets)
    torch.testing.assert_close(method.loss(BATCH), loss + total)


def test_alignguard_adds_up_the_fishers_of_its_tasks():
    method = AlignGuardLoRA(Net().eval(), TRAINING, rank=2, alpha=6.0, lr=0.3, **GUARD)
    ends = after_two_tasks(method)
    parts = [task.parts["train"] for task in TASKS]
    each = [row_fisher(model, [part.batch]) for model, part in zip(ends, parts, strict=True)]
    same(method.memory["rows"], {name: each[0][name] + each[1][name] for name in each[0]})
    old, new = (squared(model, part) for model, part in zip(ends, parts, strict=True))
    same(method.memory["diagonal"], {name: old[name] + new[name] for name in new})

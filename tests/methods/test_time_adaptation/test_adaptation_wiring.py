"""What each class makes of its options: logits and every weight after a stream, against plain autograd.

The references below take a batch at a time and know no segments; every option is varied against one of them. The
model is a convolution, a BatchNorm and a head of random weights, in float64.
"""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.data.tensors import TensorSet
from fisherexp.methods.test_time_adaptation.augmix import augmix
from fisherexp.methods.test_time_adaptation.bn_adapt import BNAdapt
from fisherexp.methods.test_time_adaptation.cotta import CoTTA
from fisherexp.methods.test_time_adaptation.eata import EATA
from fisherexp.methods.test_time_adaptation.eta import ETA
from fisherexp.methods.test_time_adaptation.lame import LAME, adjusted, affinity
from fisherexp.methods.test_time_adaptation.memo import MEMO
from fisherexp.methods.test_time_adaptation.rdumb import RDumb
from fisherexp.methods.test_time_adaptation.roid import (
    ROID,
    sample_weights,
    smoothed_prior,
    soft_likelihood_ratio,
    symmetric_cross_entropy,
)
from fisherexp.methods.test_time_adaptation.rotta import RoTTA
from fisherexp.methods.test_time_adaptation.sar import SAR
from fisherexp.methods.test_time_adaptation.shot_im import ShotIM
from fisherexp.methods.test_time_adaptation.tent import Tent
from fisherexp.methods.test_time_adaptation.update import UpdateRule
from fisherexp.methods.test_time_adaptation.views import jittered
from fisherexp.metrics.classification import ClassificationMetrics
from fisherexp.scenarios.setting import Segment, Setting
from fisherexp.seeds import generator

CLASSES, BATCH = 4, 12
LOOSE = {"rtol": 1e-4, "atol": 1e-5}


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x))).flatten(1)


class Net(nn.Module):
    """Answers with confidences of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.backbone, self.head = Backbone(), nn.Linear(48, CLASSES)
            nn.init.normal_(self.head.weight, std=0.35)
            nn.init.uniform_(self.backbone.norm.running_mean, -0.3, 0.3)
            nn.init.uniform_(self.backbone.norm.running_var, 0.5, 2.0)
            nn.init.uniform_(self.backbone.norm.weight, 0.5, 2.0)

    def features(self, x):
        return self.backbone(x.float())

    def logits(self, features):
        return self.head(features)

    def forward(self, x):
        return self.logits(self.features(x))


class Data:
    """What a setting asks of its data here."""

    eval_batch_size, input_shape = BATCH, (1, 6, 6)

    def loader(self, samples, batch_size, **options):
        """The last batch first, in place of a shuffled order."""
        return [samples.subset(rows).batch for rows in torch.arange(len(samples)).split(batch_size)][::-1]


def images(count, seed=1):
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


BATCHES = images(5 * BATCH).split(BATCH)


def follow(method, *segments, size=BATCH, batches=BATCHES):
    """The logits of each batch of a stream in which every segment has the same images."""
    segments = segments or (Segment(),)
    names = tuple(f"part_{i}" for i in range(len(segments)))
    found = []
    method.eval()

    class Watched(ClassificationMetrics):
        def update(self, part, logits, labels):
            found.append(logits.clone())

    inputs = torch.cat(batches)
    parts = dict.fromkeys(names, TensorSet(inputs, torch.zeros(len(inputs), dtype=torch.int64)))
    setting = Setting(Data(), parts, names, partial(Watched, names), segments=segments, stream_batch_size=size)
    method.evaluate(setting)
    for number, part in enumerate(names):
        for index, rows in enumerate(parts[part].inputs.split(size)):
            method.test_step(TensorSet(rows, torch.zeros(len(rows), dtype=torch.int64)).batch, index, number)
    return found


def adapting(model=None):
    """A copy that normalizes by the batch, and its affine parameters."""
    model = copy.deepcopy(model or Net()).eval()
    model.requires_grad_(False)
    norm = model.backbone.norm
    norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    moving = [norm.weight.requires_grad_(), norm.bias.requires_grad_()]
    return model, moving


def entropies(logits):
    p = logits.softmax(1)
    return -(p * p.log()).sum(1)


def optimizer_of(rule, parameters):
    if rule.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rule.lr, momentum=rule.momentum)
    return torch.optim.Adam(parameters, lr=rule.lr, betas=(rule.momentum, 0.999))


def same_outcome(method, logits, found, model):
    torch.testing.assert_close(found, logits, **LOOSE)
    mine = dict(method.model.named_parameters())
    for name, expected in model.named_parameters():
        torch.testing.assert_close(mine[name], expected, msg=lambda text, n=name: f"{n}: {text}", **LOOSE)


def differ(outcomes):
    """The control: each option has left its mark on the last logits."""
    last = [logits[-1] for logits in outcomes]
    for n, one in enumerate(last):
        assert all(not torch.allclose(one, other, **LOOSE) for other in last[:n]), f"option {n} changes nothing"


SGD, ADAM = UpdateRule("sgd", 0.05, 0.9), UpdateRule("adam", 0.02, 0.9)
RULES = [SGD, UpdateRule("sgd", 0.02, 0.9), UpdateRule("sgd", 0.05, 0.0), ADAM, UpdateRule("adam", 0.02, 0.2)]


def tent(rule, batches=BATCHES):
    model, moving = adapting()
    optimizer, answers = optimizer_of(rule, moving), []
    for x in batches:
        logits = model(x)
        optimizer.zero_grad()
        entropies(logits).mean().backward()
        optimizer.step()
        answers.append(logits.detach())
    return model, answers


def test_update_rule():
    """Optimizer, rate and momentum, over five steps of Tent. Adam's second momentum is torch's own."""
    outcomes = []
    for rule in RULES:
        method = Tent(Net(), rule)
        outcomes.append(follow(method))
        model, answers = tent(rule)
        same_outcome(method, answers, outcomes[-1], model)
    differ(outcomes)


def test_when_a_stream_resets():
    """Weights, optimizer and batch statistics: after a reset the next batch is the first one."""
    _, whole = tent(ADAM, [*BATCHES, *BATCHES])
    _, again = tent(ADAM)
    alone = [tent(ADAM, [x])[1][0] for x in BATCHES]
    expected = {"never": whole, "before": [*again, *again], "each_batch": [*again, *alone]}
    for reset, answers in expected.items():
        torch.testing.assert_close(follow(Tent(Net(), ADAM), Segment(), Segment(reset=reset)), answers, **LOOSE)
    differ(expected.values())


def eta(rule, e_margin, d_margin, reweight=True, over="kept", interval=0, keep=False, beta=0.0, fisher=(0.0, 0.0)):
    """ETA; with beta EATA; with an interval RDumb, which with `keep` goes on with its mean."""
    model, moving = adapting()
    origin = [p.detach().clone() for p in moving]
    optimizer, mean, answers = optimizer_of(rule, moving), None, []
    for number, x in enumerate(BATCHES, start=1):
        logits = model(x)
        answers.append(logits.detach())
        h, p = entropies(logits), logits.softmax(1).detach()
        chosen = h < e_margin * math.log(CLASSES)
        if mean is not None:
            chosen = chosen & (F.cosine_similarity(mean[None], p) < d_margin)
        if chosen.any():
            new = p[chosen].mean(0)
            mean = new if mean is None else 0.9 * mean + 0.1 * new
            weights = (e_margin * math.log(CLASSES) - h.detach()).exp() if reweight else torch.ones_like(h.detach())
            loss = (weights * h)[chosen].sum() / (chosen.sum() if over == "kept" else len(x))
            anchor = sum((f * (w - o) ** 2).sum() for f, w, o in zip(fisher, moving, origin, strict=True))
            optimizer.zero_grad()
            (loss + beta * anchor).backward()
            optimizer.step()
        if number == interval:
            for w, o in zip(moving, origin, strict=True):
                w.data.copy_(o)
            optimizer = optimizer_of(rule, moving)
            mean = mean if keep else None
    return model, answers


PLAIN = {"e_margin": 0.9, "d_margin": 0.97, "reweight": True, "over": "kept"}
ETA_OPTIONS = [{}, {"e_margin": 0.6}, {"d_margin": 0.8}, {"reweight": False}, {"over": "batch"}]


@pytest.mark.parametrize("rule", [SGD, ADAM], ids=["sgd", "adam"])
def test_eta(rule):
    outcomes = []
    for options in ETA_OPTIONS:
        method = ETA(Net(), rule, **PLAIN | options, reset="everything")
        outcomes.append(follow(method))
        model, answers = eta(rule, **PLAIN | options)
        same_outcome(method, answers, outcomes[-1], model)
    differ(outcomes)


class Fisher(dict):
    """As much of a diagonal Fisher as EATA asks for."""

    count = 1

    def trace(self):
        return sum(f.sum() for f in self.values())


FISHER = Fisher(
    {
        "backbone.norm.weight": torch.tensor([0.3, 2.0, 0.7]),
        "backbone.norm.bias": torch.tensor([1.1, 0.2, 0.0]),
    }
)


def test_eata():
    """beta as it is given, or relative to the mean of the Fisher over the moving weights."""
    mean = FISHER.trace().item() / 6
    cases = [
        ({"beta": 2.0, "beta_relative": 0.05}, 2.0),
        ({"beta": None, "beta_relative": 3.0}, 3.0 / mean),
        ({"beta": None, "beta_relative": 0.5}, 0.5 / mean),
        *(({"beta": 2.0, "beta_relative": 0.0, **options}, 2.0) for options in ETA_OPTIONS[1:]),
    ]
    outcomes = []
    for options, beta in cases:
        method = EATA(Net(), SGD, **PLAIN | options, reset="everything", importance=None)
        method.given["fisher"] = FISHER
        outcomes.append(follow(method))
        own = {name: value for name, value in (PLAIN | options).items() if not name.startswith("beta")}
        model, answers = eta(SGD, **own, beta=beta, fisher=tuple(FISHER.values()))
        same_outcome(method, answers, outcomes[-1], model)
    differ(outcomes)


def test_rdumb():
    """Its interval, and what a reset forgets: with `official` the mean prediction stays."""
    outcomes = []
    for interval, reset in ((2, "everything"), (3, "everything"), (2, "official")):
        rule = UpdateRule("sgd", 0.3, 0.9)
        method = RDumb(Net(), interval, rule, **PLAIN | {"d_margin": 0.85}, reset=reset)
        outcomes.append(follow(method, Segment(), size=BATCH)[:4])
        _, answers = eta(rule, **PLAIN | {"d_margin": 0.85}, interval=interval, keep=reset == "official")
        torch.testing.assert_close(outcomes[-1][:4], answers[:4], **LOOSE)
    differ(outcomes)


def test_a_reset_leaves_the_mean_where_it_says_so():
    """ETA before a segment that resets: with `official` the second one knows what the first has seen."""
    options = PLAIN | {"d_margin": 0.85}
    forgets = follow(ETA(Net(), SGD, **options, reset="everything"), Segment(), Segment(reset="before"))
    keeps = follow(ETA(Net(), SGD, **options, reset="official"), Segment(), Segment(reset="before"))
    torch.testing.assert_close(forgets[:5], forgets[5:])
    torch.testing.assert_close(keeps[:5], forgets[:5])
    assert not torch.allclose(keeps[6], forgets[6], **LOOSE)


E_RESET = 0.829  # nats; the average of SAR's losses below begins above it and falls


def sar(rule, e_margin, rho, e_reset, recovery, step_on, skip):
    model, moving = adapting()
    if skip:
        return model, [model(x) for x in BATCHES]
    origin, margin = [p.detach().clone() for p in moving], e_margin * math.log(CLASSES)
    optimizer, average, answers = optimizer_of(rule, moving), None, []
    for x in BATCHES:
        logits = model(x)
        answers.append(logits.detach())
        first = entropies(logits)
        reliable = first < margin
        if not reliable.any():
            if step_on == "every_batch":
                for p in moving:
                    p.grad = torch.zeros_like(p)
                optimizer.step()
            continue
        gradients = torch.autograd.grad(first[reliable].mean(), moving)
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        before = [p.detach().clone() for p in moving]
        for p, g in zip(moving, gradients, strict=True):
            p.data += rho * g / norm
        second = entropies(model(x))
        still = reliable & (second < margin)
        loss = second[still].mean()
        gradients = torch.autograd.grad(loss, moving)
        for p, g, value in zip(moving, gradients, before, strict=True):
            p.data, p.grad = value, g
        optimizer.step()
        average = loss.item() if average is None else 0.9 * average + 0.1 * loss.item()
        if average < e_reset:
            for p, o in zip(moving, origin, strict=True):
                p.data.copy_(o)
            optimizer, average = optimizer_of(rule, moving), average if recovery == "official" else None
    return model, answers


def test_sar():
    plain = {"e_margin": 0.9, "rho": 0.3, "e_reset": 0.0, "recovery": "everything", "step_on": "reliable", "skip": []}
    cases = [{}, {"e_margin": 0.6}, {"rho": 0.05}, {"e_reset": E_RESET}, {"skip": ["norm"]}]
    outcomes = []
    for options in cases:
        method = SAR(Net(), SGD, **plain | options)
        if options.get("skip"):
            with pytest.raises(ValueError, match="none that it may"):
                follow(method)
            continue
        outcomes.append(follow(method))
        model, answers = sar(SGD, **plain | options)
        same_outcome(method, answers, outcomes[-1], model)
    differ(outcomes)


@pytest.mark.parametrize("recovery", ["everything", "official"])
def test_sar_recovers(recovery):
    """A margin that lets the average recover after some batches, and what it is then."""
    rule = UpdateRule("sgd", 0.3, 0.9)
    options = {"e_margin": 0.9, "rho": 0.1, "e_reset": E_RESET, "recovery": recovery, "step_on": "reliable", "skip": []}
    method = SAR(Net(), rule, **options)
    found = follow(method)
    model, answers = sar(rule, **options)
    same_outcome(method, answers, found, model)
    assert method.counts[0]["recoveries"] > 0


@pytest.mark.parametrize("passes", [0, 1, 2])
def test_shot(passes):
    """All parameters but the head's; online, or in passes over a segment with a falling rate before it is predicted."""
    method = ShotIM(Net(), SGD, passes)
    found = follow(method)
    model, _ = adapting()
    model.backbone.requires_grad_(True)
    optimizer, answers, steps = optimizer_of(SGD, list(model.backbone.parameters())), [], 5 * passes
    for step, x in enumerate(passes * BATCHES[::-1] or BATCHES, start=1):
        if passes:
            optimizer.param_groups[0]["lr"] = 0.05 * (1 + 10 * step / steps) ** -0.75
        logits = model(x)
        mean = logits.softmax(1).mean(0)
        optimizer.zero_grad()
        (entropies(logits).mean() + (mean * mean.log()).sum()).backward()
        optimizer.step()
        answers.append(logits.detach())
    same_outcome(method, [model(x).detach() for x in BATCHES] if passes else answers, found, model)


def roid(rule, temperature, ensembling, momentum, consistency, prior_correction, correct, over, flip, size=BATCH):
    model, moving = adapting()
    origin = [p.detach().clone() for p in moving]
    optimizer, drawn = optimizer_of(rule, moving), generator("views", 0, "ROID")
    mean, answers = torch.full((CLASSES,), 1 / CLASSES), []
    for x in torch.cat(BATCHES).split(size):
        logits = model(x)
        log_p = logits.log_softmax(1)
        weights = sample_weights(log_p.detach(), mean, temperature)
        mean = momentum * mean + (1 - momentum) * log_p.detach().exp().mean(0)
        chosen = weights > 0
        loss = (weights * soft_likelihood_ratio(log_p.exp())).sum()
        if consistency:
            view = model(jittered(x[chosen], drawn, blur=False, flip=flip)).log_softmax(1)
            loss = loss + (weights[chosen] * symmetric_cross_entropy(view, log_p[chosen])).sum()
        optimizer.zero_grad()
        (loss / (len(x) if over == "batch" else size)).backward()
        optimizer.step()
        for p, o in zip(moving, origin, strict=True):
            p.data = ensembling * p.data + (1 - ensembling) * o
        prior = smoothed_prior(log_p.detach())
        corrected = {"logits": logits * prior, "probabilities": log_p + prior.log(), "none": logits}
        answers.append(corrected[prior_correction].detach())
    return model, answers


def test_roid():
    plain = {
        "temperature": 0.5,
        "ensembling": 0.9,
        "momentum": 0.7,
        "consistency": True,
        "prior_correction": "none",
        "correct": "every_answer",
        "over": "batch",
        "flip": True,
    }
    changes = [
        {},
        {"temperature": 0.2},
        {"ensembling": 0.5},
        {"momentum": 0.1},
        {"consistency": False},
        {"prior_correction": "logits"},
        {"prior_correction": "probabilities"},
        {"flip": False},
    ]
    outcomes = []
    for options in changes:
        method = ROID(Net(), SGD, **plain | options)
        outcomes.append(follow(method))
        model, answers = roid(SGD, **plain | options)
        same_outcome(method, answers, outcomes[-1], model)
    differ(outcomes)


@pytest.mark.parametrize("over", ["batch", "batch_size"])
def test_roid_divides_a_short_batch_as_it_says(over):
    """The batch size is that of the stream, which is not the one the data are evaluated in."""
    rule, size = UpdateRule("sgd", 0.05, 0.0), 7  # the last batch has four images
    options = {"temperature": 0.5, "ensembling": 1.0, "momentum": 0.7, "consistency": False, "flip": True}
    options |= {"prior_correction": "none", "correct": "every_answer", "over": over}
    method = ROID(Net(), rule, **options)
    found = follow(method, size=size)
    model, answers = roid(rule, **options, size=size)
    same_outcome(method, answers, found, model)


def cotta(rule, views, threshold, momentum, restore, flip, parameters, loss):
    teacher, _ = adapting()
    teacher.requires_grad_(True)
    anchor, student = copy.deepcopy(teacher), copy.deepcopy(teacher)
    optimizer, drawn, answers = optimizer_of(rule, list(student.parameters())), generator("views", 0, "CoTTA"), []
    for x in BATCHES:
        with torch.no_grad():
            if anchor(x).softmax(1).amax(1).mean() < threshold:
                answer = sum(teacher(jittered(x, drawn, flip=flip)) for _ in range(views)) / views
            else:
                answer = teacher(x)
        optimizer.zero_grad()
        F.cross_entropy(student(x), answer.softmax(1)).backward()
        optimizer.step()
        with torch.no_grad():
            for t, s in zip(teacher.parameters(), student.parameters(), strict=True):
                t.copy_(momentum * t + (1 - momentum) * s)
            for s, a in zip(student.parameters(), anchor.parameters(), strict=True):
                s.copy_(torch.where(torch.rand(s.shape, generator=drawn) < restore, a, s))
        answers.append(answer)
    return teacher, answers


def test_cotta():
    plain = {"views": 3, "threshold": 1.0, "momentum": 0.5, "restore": 0.1, "flip": True}
    plain |= {"parameters": "all", "loss": "cross_entropy"}  # the others: test_cotta.py
    changes = [{}, {"views": 2}, {"threshold": 0.0}, {"momentum": 0.9}, {"restore": 0.6}, {"flip": False}]
    outcomes = []
    for options in changes:
        method = CoTTA(Net(), SGD, **plain | options)
        outcomes.append(follow(method))
        teacher, answers = cotta(SGD, **plain | options)
        same_outcome(method, answers, outcomes[-1], teacher)
    differ(outcomes)


THRESHOLD = 0.74


def test_cotta_looks_at_the_confidence_of_the_source():
    """A threshold that the source stays below for good and the teacher, which grows more certain, does not."""
    options = {"views": 3, "threshold": THRESHOLD, "momentum": 0.2, "restore": 0.0, "flip": True}
    options |= {"parameters": "all", "loss": "cross_entropy"}
    rule = UpdateRule("sgd", 0.3, 0.9)
    method = CoTTA(Net(), rule, **options)
    found = follow(method)
    teacher, answers = cotta(rule, **options)
    same_outcome(method, answers, found, teacher)
    with torch.no_grad():
        of_source, of_teacher = ([m(x).softmax(1).amax(1).mean() for x in BATCHES] for m in (adapting()[0], teacher))
    assert sum(c < THRESHOLD for c in of_source) != sum(c < THRESHOLD for c in of_teacher)


def mixed(model, share, x, unbiased):
    """Logits with statistics (1 - share) · stored + share · batch, and these statistics."""
    hidden = model.backbone.conv(x.float())
    var, mean = torch.var_mean(hidden.detach() if unbiased else hidden, (0, 2, 3), correction=int(unbiased))
    norm = model.backbone.norm
    mean = (1 - share) * norm.running_mean + share * mean
    var = (1 - share) * norm.running_var + share * var
    column = (1, -1, 1, 1)
    scaled = (hidden - mean.view(column)) / (var.view(column) + norm.eps).sqrt()
    hidden = scaled * norm.weight.view(column) + norm.bias.view(column)
    return model.head(torch.relu(hidden).flatten(1)), (mean.detach(), var.detach())


def test_rotta():
    """One class in the memory's eyes or several: the memory and the views are its own, the step is written out."""
    plain = {"alpha": 0.3, "nu": 0.2, "capacity": 6, "interval": 10, "by_age": 1.0, "by_entropy": 1.0, "flip": True}
    changes = [
        {},
        {"alpha": 0.05},
        {"nu": 0.6},
        {"capacity": 4},
        {"interval": 7},
        {"by_age": 0.2},
        {"by_entropy": 20.0},
        {"flip": False},
    ]
    outcomes = []
    for options in changes:
        given = plain | options
        method = RoTTA(Net(), SGD, **given)
        outcomes.append(follow(method))
        teacher, answers = rotta(SGD, **given)
        same_outcome(method, answers, outcomes[-1], teacher)
    differ(outcomes)


def rotta(rule, alpha, nu, capacity, interval, by_age, by_entropy, flip):
    """Every image is offered to the memory on its own; teacher and student keep their own statistics."""
    teacher = Net().eval().requires_grad_(False)
    for p in (teacher.backbone.norm.weight, teacher.backbone.norm.bias):
        p.requires_grad_(True)
    student = copy.deepcopy(teacher)
    moving = [student.backbone.norm.weight, student.backbone.norm.bias]
    optimizer, drawn = optimizer_of(rule, moving), generator("views", 0, "RoTTA")
    memory, seen, answers = [], 0, []  # of {image, label, entropy, age}
    for x in BATCHES:
        with torch.no_grad():
            logits = teacher(x)
        answers.append(logits)
        for image, label, h in zip(x, logits.argmax(1).tolist(), entropies(logits).tolist(), strict=True):
            remember(memory, {"x": image, "c": label, "h": h, "age": 0}, capacity, by_age, by_entropy)
            for kept in memory:
                kept["age"] += 1
            seen += 1
            if seen % interval:
                continue
            ordered = sorted(memory, key=lambda kept: kept["c"])
            kept, ages = torch.stack([k["x"] for k in ordered]), torch.tensor([k["age"] / capacity for k in ordered])
            with torch.no_grad():
                wanted, of_teacher = mixed(teacher, alpha, kept, False)
            answer, of_student = mixed(student, alpha, jittered(kept, drawn, flip=flip), False)
            weights = torch.exp(-ages) / (1 + torch.exp(-ages))
            optimizer.zero_grad()
            (weights * F.cross_entropy(answer, wanted.softmax(1), reduction="none")).mean().backward()
            optimizer.step()
            for network, (mean, var) in ((teacher, of_teacher), (student, of_student)):
                network.backbone.norm.running_mean, network.backbone.norm.running_var = mean, var
            with torch.no_grad():
                for t, s in zip((teacher.backbone.norm.weight, teacher.backbone.norm.bias), moving, strict=True):
                    t.copy_((1 - nu) * t + nu * s)
    return teacher, answers


def remember(memory, new, capacity, by_age, by_entropy):
    def score(kept):
        return by_age / (1 + math.exp(-kept["age"] / capacity)) + by_entropy * kept["h"] / math.log(CLASSES)

    held = [sum(kept["c"] == c for kept in memory) for c in range(CLASSES)]
    if held[new["c"]] >= capacity / CLASSES:
        rivals = [kept for kept in memory if kept["c"] == new["c"]]
    elif len(memory) < capacity:
        memory.append(new)
        return
    else:
        rivals = [kept for kept in memory if held[kept["c"]] == max(held)]
    worst = max(reversed(rivals), key=score)
    if score(worst) > score(new):
        del memory[next(n for n, kept in enumerate(memory) if kept is worst)]
        memory.append(new)


def test_memo():
    """A step for each image on its views, with the statistics its prior mixes, then an answer for the image."""
    outcomes, batches = [], BATCHES[:2]  # each image is a step
    plain = {"views": 4, "prior": 3, "episodic": True, "flip": True, "crop": "padded", "resampling": "rounded"}
    for options in ({}, {"views": 2}, {"prior": 0}, {"episodic": False}, {"flip": False}):
        given = plain | options
        method = MEMO(Net(), UpdateRule("sgd", 0.05, 0.9), **given)
        outcomes.append(follow(method, batches=batches))
        model, drawn, answers = Net().eval(), generator("views", 0, "MEMO"), []
        optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9)
        share = 1 / (given["prior"] + 1)
        for x in batches:
            rows = []
            for image, views in zip(x.split(1), augmix(x, given["views"], drawn, given["flip"]), strict=True):
                logits, _ = mixed(model, share, views, True)
                p = logits.softmax(1).mean(0)
                optimizer.zero_grad()
                (-(p * p.clamp_min(1e-30).log()).sum()).backward()
                optimizer.step()
                with torch.no_grad():
                    rows.append(mixed(model, share, image, True)[0])
                if given["episodic"]:
                    model.load_state_dict(Net().state_dict())
                    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9)
            answers.append(torch.cat(rows))
        torch.testing.assert_close(outcomes[-1], answers, rtol=1e-3, atol=1e-4)
    differ(outcomes)


def test_bn_adapt():
    """Of the batch alone; mixed with the source's; a running average that the answer follows."""
    outcomes = []
    for mode, alpha in (("test", 0.3), ("alpha", 0.3), ("alpha", 0.7), ("ema", 0.3), ("ema", 0.7)):
        outcomes.append(follow(BNAdapt(Net(), mode, alpha)))
        model, answers = Net().eval(), []
        for x in BATCHES:
            with torch.no_grad():
                if mode == "test":
                    answers.append(adapting()[0](x))
                    continue
                logits, (mean, var) = mixed(model, alpha, x, True)
                if mode == "ema":
                    model.backbone.norm.running_mean, model.backbone.norm.running_var = mean, var
                    logits = model(x)
                answers.append(logits)
        torch.testing.assert_close(outcomes[-1], answers, **LOOSE)
    differ(outcomes)


def test_lame():
    """The affinity it names, of features, on the source's own predictions."""
    outcomes = []
    cases = (("rbf", 5, 0.0), ("rbf", 2, 0.0), ("knn", 5, 0.0), ("knn", 2, 0.0), ("linear", 5, 0.0), ("rbf", 5, 0.1))
    for kind, neighbors, floor in cases:
        outcomes.append(follow(LAME(Net(), kind, neighbors, floor)))
        model = Net().eval()
        with torch.no_grad():
            pairs = ((model(x).log_softmax(1), affinity(model.features(x), kind, neighbors)) for x in BATCHES)
            answers = [adjusted(*pair, floor) for pair in pairs]
        torch.testing.assert_close(outcomes[-1], answers, **LOOSE)
    differ(outcomes)

"""CoTTA and RoTTA: their steps by hand, the memory's rules, and what is left when a rate is zero."""

import copy
import math

import pytest
import torch

from fisherexp.methods.test_time_adaptation.memory import BalancedMemory, badness
from fisherexp.methods.test_time_adaptation.rotta import timeliness
from fisherexp.methods.test_time_adaptation.teacher import cross_entropy, follow
from fisherexp.scenarios.setting import Segment

NEVER = Segment()
IMAGE = torch.zeros(1, 2, 2)


def test_loss_and_teacher():
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(student, teacher.softmax(1), reduction="none")
    torch.testing.assert_close(cross_entropy(student, teacher), expected)
    one, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    wanted = 0.9 * one.weight.detach() + 0.1 * other.weight.detach()
    one.bias.requires_grad_(False)
    bias = one.bias.clone()
    follow(one, other, 0.9)
    torch.testing.assert_close(one.weight.detach(), wanted)
    assert torch.equal(one.bias, bias)


def test_cotta_without_views_by_hand(make, stream, follow):
    """Threshold 0 (no views), no restoring: a mean teacher, step by step."""
    options = ["threshold=0.0", "restore=0.0", "momentum=0.5", "update.optimizer=sgd", "update.lr=0.05"]
    method, setting = make("cotta", *options), stream(NEVER)
    method.evaluate(setting)
    teacher, student = copy.deepcopy(method.model), copy.deepcopy(method.model)
    optimizer = torch.optim.SGD(student.parameters(), 0.05, 0.9)
    expected = []
    for images, *_ in setting.loader("noise_0", batch_size=50):
        answer = teacher(images).detach()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(student(images), answer.softmax(1)).backward()
        optimizer.step()
        for t, s in zip(teacher.parameters(), student.parameters(), strict=True):
            t.data = 0.5 * t.data + 0.5 * s.data
        expected.append(answer)
    found = follow(method, setting)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert method.outcome["forward_samples"] == 3 * 200  # anchor, teacher, student


def test_cotta_restores_the_source_with_the_given_probability(make, stream, follow):
    moved = {}
    for restore in (0.0, 0.3, 1.0):
        method = make("cotta", "threshold=0.0", f"restore={restore}", "update.optimizer=sgd", "update.lr=0.05")
        follow(method, stream(NEVER, images=50))
        pairs = zip(method.student.parameters(), method.anchor.parameters(), strict=True)
        moved[restore] = torch.cat([(p != a).flatten() for p, a in pairs]).float().mean().item()
    assert moved[1.0] == 0
    assert moved[0.3] == pytest.approx(0.7 * moved[0.0], abs=0.05)


@pytest.mark.parametrize(("threshold", "forwards"), [(0.0, 3), (1.0, 2 + 4)])
def test_cotta_looks_at_views_where_the_source_is_not_confident(make, stream, follow, threshold, forwards):
    method = make("cotta", "views=4", f"threshold={threshold}")
    follow(method, stream(NEVER, images=50))
    assert method.outcome["forward_samples"] == forwards * 50


def test_rotta_that_never_learns_is_the_source(make, stream, follow):
    setting = stream(NEVER, NEVER)
    expected = follow(make("source"), setting)
    # alpha=0 keeps the statistics, nu=0 the weights.
    found = follow(make("rotta", "alpha=0.0", "nu=0.0", "interval=16"), setting)
    assert all(map(torch.equal, found, expected))
    assert not all(map(torch.equal, follow(make("rotta", "alpha=0.3", "nu=0.0", "interval=16"), setting), expected))


def test_rotta_learns_every_interval_on_its_memory(make, stream, follow):
    method = make("rotta", "interval=30", "capacity=20")
    follow(method, stream(NEVER, images=100))
    assert method.outcome["updates"] == 3
    assert method.outcome["backward_samples"] <= 3 * 20
    assert method.state["seen"] == 100
    assert len(method.state["memory"]) <= 20


def test_scores_and_weights():
    ages, entropies = torch.tensor([0.0, 5.0]), torch.tensor([0.2, 1.0])
    expected = [2 / (1 + math.exp(-a / 8)) + 3 * h / math.log(4) for a, h in ((0, 0.2), (5, 1.0))]
    assert badness(ages, entropies, 8, 4, 2.0, 3.0).tolist() == pytest.approx(expected)
    assert timeliness(ages).tolist() == pytest.approx([math.exp(-a) / (1 + math.exp(-a)) for a in (0, 5)])


def test_memory_shares_its_places_among_classes_and_keeps_the_certain():
    memory = BalancedMemory(4, 2, by_age=0.0, by_entropy=1.0)
    for entropy in (0.5, 0.3, 0.1):
        memory.add(IMAGE, 0, entropy)
    assert memory.labels == [0, 0]  # its share is two; the worst has left
    assert memory.entropies == [0.3, 0.1]
    memory.add(IMAGE, 0, 0.6)  # worse than both
    assert memory.entropies == [0.3, 0.1]
    for entropy in (0.6, 0.5):
        memory.add(IMAGE, 1, entropy)
    assert sorted(memory.labels) == [0, 0, 1, 1]


def test_a_full_memory_makes_room_from_its_largest_classes():
    memory = BalancedMemory(4, 3, by_age=0.0, by_entropy=1.0)  # a share of 4/3: two of a class fit
    for label, entropy in ((0, 0.5), (0, 0.4), (1, 0.9), (1, 0.2)):
        memory.add(IMAGE, label, entropy)
    memory.add(IMAGE, 2, 0.3)
    assert sorted(zip(memory.labels, memory.entropies, strict=True)) == [(0, 0.4), (0, 0.5), (1, 0.2), (2, 0.3)]


def test_old_images_leave_first_and_ages_count_images_seen():
    memory = BalancedMemory(4, 2, by_age=1.0, by_entropy=0.0)
    for value in range(5):
        memory.add(IMAGE + value, 0, 0.0)
    images, ages = memory.batch()
    assert images[:, 0, 0, 0].tolist() == [3, 4]
    assert ages.tolist() == [0.5, 0.25]

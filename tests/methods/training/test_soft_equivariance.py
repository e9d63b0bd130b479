"""Symmetries on layers: the projections, the rule for the strengths, exact layers, and what softness is for."""

import pytest
import torch

from fisherexp.methods.training.equivariance import MEMBERS, actions, linear_layers, network, regular, residual, square
from fisherexp.methods.training.hard_equivariance import Equivariant, ResidualPathway
from fisherexp.methods.training.soft_equivariance import SoftEquivariance, tuned
from fisherexp.problems.mixed_symmetry import MIRROR, TURN, MixedSymmetry, equivariance_error, moved

COPIES = [2, 1]
FEW = {"copies": [1], "steps": 6}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return network(3, COPIES)


@pytest.fixture(scope="module")
def problem():
    return MixedSymmetry(n=20).load(0)


def test_representations_are_homomorphisms_and_the_regular_one_permutes():
    plane = square()
    permutations = regular(plane)
    for g in range(8):
        assert sorted(permutations[g].argmax(0).tolist()) == list(range(8))
        assert permutations[g].sum() == 8
        for h in range(8):
            product = next(k for k in range(8) if torch.allclose(plane[k], plane[g] @ plane[h], atol=1e-6))
            assert torch.equal(permutations[product], permutations[g] @ permutations[h])


@pytest.mark.parametrize("group", MEMBERS)
def test_projections_are_orthogonal_and_onto_weights_that_commute(group, model):
    for layer, action in zip(linear_layers(model), actions(group, 3, COPIES), strict=True):
        projected = action.project(layer.weight)
        torch.testing.assert_close(action.project(projected), projected)
        assert ((layer.weight - projected) * projected).sum().abs() < 1e-5
        for rho_in, rho_out in zip(*action, strict=True):
            torch.testing.assert_close(rho_out @ projected, projected @ rho_in, atol=1e-6, rtol=0)
            torch.testing.assert_close(rho_out @ action.project_bias(layer.bias), action.project_bias(layer.bias))
    assert residual(linear_layers(model), actions(group, 3, COPIES)) > 0.1  # control: these are no such weights


def test_the_larger_group_is_farther_away(model):
    found = {group: residual(linear_layers(model), actions(group, 3, COPIES)) for group in MEMBERS}
    assert found["square"] > max(found["turns"], found["mirror"])


@pytest.mark.parametrize(("group", "commutes"), [("square", (True, True)), ("turns", (True, False))])
def test_a_network_of_projected_weights_commutes_with_its_group_and_with_no_other(group, commutes, problem):
    torch.manual_seed(0)
    method = Equivariant(group=group, **FEW)
    method.begin(problem, 0)
    for _ in range(3):
        method.step()
    points = problem.instance["test.inputs"]
    for matrix, exact in zip((TURN, MIRROR), commutes, strict=True):
        assert (equivariance_error(method.solution(), points, matrix) < 1e-5) == exact


def test_the_error_of_equivariance_is_between_none_and_one():
    points = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    first = lambda x: x[:, :2]  # noqa: E731
    assert equivariance_error(first, points, TURN) < 1e-6
    assert equivariance_error(lambda x: x[:, :2].abs(), points, -torch.eye(2)) == pytest.approx(1.0)
    assert torch.equal(moved(torch.tensor([[1.0, 0.0, 0.0, 2.0]]), TURN), torch.tensor([[0.0, 1.0, -2.0, 0.0]]))


def test_the_rule_releases_what_is_far_and_leaves_groups_without_strength_out():
    strengths, residuals = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.5, 1.0, 0.1])
    assert tuned(strengths, residuals, 2.0).tolist() == [1.0, 0.25, 0.0]
    assert tuned(strengths, residuals, 0.0).tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(("official", "kept"), [(False, [0.96, 1.0]), (True, [2.34, 1.0])])
def test_smallest_residuals_are_kept_one_by_one(official, kept, problem):
    method = SoftEquivariance(skip=1, official=official, **FEW)
    method.begin(problem, 0)
    for number, found in enumerate([[0.1, 0.1], [0.96, 3.0], [2.34, 1.0]]):  # the first is skipped
        method.updates = number
        method.note(torch.tensor(found))
    assert method.smallest.tolist() == pytest.approx(kept)


def test_without_strength_it_is_plain_training_and_a_residual_pathway_begins_as_the_plain_network(problem):
    def begun(kind, **options):
        torch.manual_seed(0)
        method = kind(**FEW, **options)
        method.begin(problem, 0)
        return method

    off, on = begun(SoftEquivariance, strength=0.0), begun(SoftEquivariance, strength=1.0)
    assert off.penalty() == 0 < on.penalty()
    points = problem.instance["test.inputs"]
    pathway = begun(ResidualPathway)
    torch.testing.assert_close(pathway.solution()(points), off.solution()(points), rtol=1e-4, atol=1e-5)
    residuals = [p for name, p in pathway.network.named_parameters() if name.endswith("original1")]
    assert len(residuals) == 4
    assert pathway.penalty().item() == pytest.approx(0.5 * sum(p.square().sum().item() for p in residuals))


def test_a_residual_pathway_leaves_its_symmetry_only_as_far_as_its_decay_lets_it():
    """Where mirroring is broken, by the error of mirroring behind sixty steps."""
    problem = MixedSymmetry(n=40, twist=0.5).load(0)

    def broken(residual_decay):
        torch.manual_seed(0)
        method = ResidualPathway(residual_decay=residual_decay, copies=[1], steps=60, learning_rate=0.02)
        method.begin(problem, 0)
        while not method.done:
            method.step()
        return equivariance_error(method.solution(), problem.instance["test.inputs"], MIRROR)

    tight, between, free = broken(30.0), broken(3.0), broken(0.0)
    assert tight < 0.12 < 0.2 < between < 0.33 < free


def test_targets_have_the_symmetry_that_is_said():
    points = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    problem = MixedSymmetry(n=5, twist=0.0).load(0)
    each = problem.instance["train.inputs"].unflatten(1, (3, 2))
    torch.testing.assert_close(problem.instance["train.targets"], (each.norm(dim=2, keepdim=True) * each).sum(1))
    twisted = MixedSymmetry(n=5, twist=0.5).load(0).instance["train.targets"]
    torch.testing.assert_close(twisted, problem.instance["train.targets"] @ (torch.eye(2) + 0.5 * TURN).T)
    assert points.shape == (1, 6)


@pytest.mark.proof
def test_softness_pays_and_the_residual_tells_the_broken_symmetry():
    """Mean of three seeds: where nothing is broken the error is at most half of the plain network's. Where mirroring
    is, its strength is released and that of turning stays; the residual of mirroring over that of turning grows by more
    than 1.4."""

    def mean(kind, twist, **options):
        found = []
        for seed in range(3):
            problem = MixedSymmetry(twist=twist).load(seed)
            torch.manual_seed(seed)
            method = kind(**options)
            method.begin(problem, seed)
            while not method.done:
                method.step()
            found.append(problem.evaluate(method.solution()) | method.metrics())
        return {name: sum(f[name] for f in found) / 3 for name in found[0]}

    ratios = {}
    for twist in (0.0, 0.5):
        soft = mean(SoftEquivariance, twist)
        if not twist:
            assert soft["test_mse"] < 0.5 * mean(SoftEquivariance, twist, strength=0.0)["test_mse"]
        ratios[twist] = soft["residual_mirror"] / soft["residual_turns"]
    assert soft["strength_turns"] == 1.0 > 5 * soft["strength_mirror"]
    assert ratios[0.5] > 1.4 * ratios[0.0]

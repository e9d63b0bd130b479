"""The auto-encoder as a method: it goes on bit for bit, and what it learns is a score."""

import pytest
import torch
from by_steps import finished

from fisherexp.methods.generation.kernel_density import KernelDensity, KernelEstimate, left_out, silverman
from fisherexp.methods.generation.score_autoencoder import ScoreAutoencoder
from fisherexp.metrics.energy import energy_distance
from fisherexp.problems.density import Density

FEW = {"hidden": [8], "steps": 6, "batch_size": 16, "chain_steps": 3}


@pytest.fixture(scope="module")
def density():
    return Density(n=2000).load(seed=0)


def begun(problem, seed=0, **options):
    torch.manual_seed(seed)
    method = ScoreAutoencoder(**options)
    method.begin(problem, seed)
    return method


@pytest.mark.parametrize("objective", ["denoising", "contractive", "score_matching", "contractive_encoder"])
def test_goes_on_bit_for_bit(objective, density, tmp_path):
    whole = finished(begun(density, objective=objective, **FEW)).tensors()
    method = begun(density, objective=objective, **FEW)
    for _ in range(3):
        method.step()
    torch.save(method.state_dict(), tmp_path / "state")
    resumed = begun(density, seed=1, objective=objective, **FEW)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    again = finished(resumed).tensors()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_kernel_estimate_is_the_gradient_of_its_density(density):
    points, bandwidth = density.instance["train"][:50].double(), 0.4
    estimate = KernelEstimate(points, bandwidth)
    places = density.instance["test"][:7].double().requires_grad_()
    logs = (-torch.cdist(places, points).square() / (2 * bandwidth**2)).logsumexp(1)
    (expected,) = torch.autograd.grad(logs.sum(), places)
    torch.testing.assert_close(estimate.score(places.detach()), expected)
    others = torch.cdist(points, points).square()[~torch.eye(50, dtype=torch.bool)].view(50, 49)
    by_hand = (-others / (2 * bandwidth**2)).exp().mean(1) / (2 * torch.pi * bandwidth**2)
    assert left_out(points, bandwidth) == pytest.approx(by_hand.log().mean().item())
    spread = points.repeat(100, 1)
    assert silverman(spread) == pytest.approx(spread.std(0).square().mean().sqrt().item() * 5000 ** (-1 / 6))
    drawn = KernelEstimate(points[:1].float(), bandwidth).sample(4000, torch.Generator().manual_seed(0))
    assert drawn.std(0).tolist() == pytest.approx([0.4, 0.4], rel=0.05)


class Exact:
    """The true score, and the test points themselves in the place of samples."""

    def __init__(self, problem, noise=0.0):
        self.score, self.problem = problem.mixture.smoothed(noise).score, problem

    def sample(self, number, generator):
        return self.problem.mixture.sample(number, generator)


def test_the_true_score_has_no_error(density):
    found = density.evaluate(Exact(density))
    assert found["score_error"] == 0
    assert found["score_cosine"] == pytest.approx(1)
    assert abs(found["energy_distance"]) < 0.01
    smoothed = Exact(density, noise=0.3)
    assert density.score_error(smoothed, noise=0.3) == 0
    assert density.score_error(smoothed) > 0.2  # the control: the two scores are told apart


def test_a_short_training_finds_the_direction_and_leaves_the_figure(density, tmp_path):
    method = finished(begun(density, steps=300, hidden=[32], chain_steps=50, learning_rate=2e-2))
    found = density.evaluate(method.solution()) | method.metrics()
    assert found["score_cosine"] > 0.95
    assert found["noisy_score_error"] < found["score_error"]
    untrained = begun(density, hidden=[32])
    assert density.evaluate(untrained.solution())["energy_distance"] > 3 * found["energy_distance"]
    density.learned, density.samples = method.solution(), torch.zeros(3, 2)
    density.leave_files(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"scores.png", "scores.pdf"}


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("objective", ["denoising", "contractive"])
def test_the_score_and_its_samples(objective, seed):
    """At σ = 0.3 the residual is the score of the smoothed density, not of the density; its samples are like data of
    the smoothed density, and its field has next to no curl."""
    problem = Density().load(seed)
    method = finished(begun(problem, seed, objective=objective, steps=3000))
    found = problem.evaluate(method.solution()) | method.metrics()
    assert found["score_cosine"] > 0.985
    assert found["noisy_score_error"] < 0.2
    assert found["score_error"] > 1.5 * found["noisy_score_error"]
    smoothed = problem.mixture.smoothed(0.3).sample(2000, torch.Generator().manual_seed(seed))
    assert energy_distance(problem.samples, smoothed) < 0.02
    angle = torch.linspace(0, 2 * torch.pi, 2001)[:-1]
    loop = problem.mixture.means[0] + 0.5 * torch.stack([angle.cos(), angle.sin()], dim=1)
    along = 0.5 * torch.stack([-angle.sin(), angle.cos()], dim=1) * (2 * torch.pi / 2000)
    pulls = method.solution().score(loop)
    assert (pulls * along).sum().abs() < 0.1 * (pulls.norm(dim=1) * along.norm(dim=1)).sum()


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_what_it_is_compared_with(seed):
    """A network that is the score learns the same; the residual of an auto-encoder whose encoder alone is contracted is
    no score. Neither width of a kernel estimate gives the density's own score: the likeliest is nearer than Silverman's
    with two seeds, farther with the third."""
    problem, errors = Density().load(seed), {}
    for objective in ("denoising", "score_matching", "contractive_encoder"):
        method = finished(begun(problem, seed, objective=objective))
        errors[objective] = method.metrics()["noisy_score_error"]
    kernels = KernelDensity()
    kernels.begin(problem, seed)
    errors["likeliest"] = problem.score_error(finished(kernels).solution())
    errors["rule"] = problem.score_error(KernelEstimate(kernels.points, silverman(kernels.points)))
    assert max(errors["denoising"], errors["score_matching"]) < 0.25
    assert errors["contractive_encoder"] > 0.8
    assert min(errors["likeliest"], errors["rule"]) > 0.25


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_less_noise_is_nearer_to_the_score_of_the_density(seed):
    problem = Density().load(seed)
    wide, narrow = (
        problem.evaluate(finished(begun(problem, seed, noise=noise, steps=3000)).solution())["score_error"]
        for noise in (0.5, 0.15)
    )
    assert narrow < 0.6 * wide

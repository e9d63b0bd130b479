"""The bridge as a method: it learns, goes on bit for bit, and leaves a figure; its problems and their refusals."""

import numpy as np
import pytest
import torch
from by_steps import finished

from fisherexp.data.digits import Digits
from fisherexp.data.errors import DataError
from fisherexp.methods.generation.light_sb import LightSB
from fisherexp.problems.unpaired import GaussianPair, ImageLatents, RingOfModes, SwissRoll, UnpairedFile

FEW = {"components": 4, "steps": 6, "batch_size": 16}


@pytest.fixture(scope="module")
def roll():
    return SwissRoll(n=300).load(seed=1)


def begun(problem, seed=0, **options):
    method = LightSB(**options)
    method.begin(problem, seed)
    return method


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("stop", [1, 4])
def test_goes_on_bit_for_bit(covariance, stop, roll, tmp_path):
    whole = finished(begun(roll, covariance=covariance, **FEW)).tensors()
    method = begun(roll, covariance=covariance, **FEW)
    for _ in range(stop):
        method.step()
    torch.save(method.state_dict(), tmp_path / "state")
    resumed = begun(roll, covariance=covariance, **FEW)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    again = finished(resumed).tensors()
    assert (
        again.keys()
        == whole.keys()
        == {"log_weights", "means", "variances"} | ({"axes"} if covariance == "full" else set())
    )
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_the_gaussian_bridge_is_found():
    problem = GaussianPair(n=4000).load(seed=0)
    options = {"components": 1, "initial_variance": 1.0, "steps": 300, "learning_rate": 3e-2}
    full, diagonal = (
        problem.evaluate(finished(begun(problem, covariance=kind, **options)).solution())
        for kind in ("full", "diagonal")
    )
    assert full["plan_error"] < 1
    assert diagonal["plan_error"] > 4 * full["plan_error"]  # control: the target's axes are tilted
    start = problem.evaluate(begun(problem, **options).solution())
    assert start["plan_error"] > 10


def test_the_first_state_of_adam_is_the_papers_start(roll):
    method = begun(roll, components=5, initial_variance=0.3)
    found = method.tensors()
    assert torch.allclose(found["variances"], torch.tensor(0.3))
    assert torch.allclose(found["log_weights"].exp(), torch.tensor(0.2))
    targets = {tuple(point) for point in roll.instance["target"].tolist()}
    assert {tuple(mean) for mean in found["means"].tolist()} <= targets
    normal = begun(roll, components=5, initial_means="normal").tensors()["means"]
    assert not {tuple(mean) for mean in normal.tolist()} & targets


def test_the_figure_is_left_of_points_on_a_line_too(tmp_path):
    problem = GaussianPair(n=50, dimension=1).load(seed=0)
    finished(begun(problem, **FEW)).leave_files(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"bridge.png", "bridge.pdf"}


def test_latents_decode_to_images_and_leave_them(tmp_path):
    problem = ImageLatents(Digits(), dimension=64).load(seed=0)
    images = Digits().load().test
    threes = images.inputs[images.targets == 3].float() / 127.5 - 1
    torch.testing.assert_close(problem.decoded(problem.instance["source_test"]), threes, rtol=0, atol=1e-4)
    problem.evaluate(begun(problem, **FEW).solution())
    problem.leave_files(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"latents.png", "latents.pdf"}
    with pytest.raises(DataError, match=r"data\.target_class=10: 0 train images of this class; there are 10 classes"):
        ImageLatents(Digits(), target_class=10).load(seed=0)
    with pytest.raises(DataError, match=r"data\.dimension=65: images have 64 pixels"):
        ImageLatents(Digits(), dimension=65).load(seed=0)


def test_own_file(tmp_path):
    source, target = np.random.default_rng(0).normal(size=(2, 40, 3))
    np.savez(tmp_path / "mine.npz", source=source, target=target[:20])
    problem = UnpairedFile(str(tmp_path / "mine.npz"), epsilon=0.5).load(seed=0)
    assert [len(problem.instance[name]) for name in ("source", "source_test", "target", "target_test")] == [
        *(30, 10),
        *(15, 5),
    ]
    parts = torch.cat([problem.instance["source"], problem.instance["source_test"]])
    assert {tuple(row) for row in parts.tolist()} == {tuple(row) for row in source.astype(np.float32).tolist()}
    for wrong, said in (
        ({"source": source}, r"has no target; it has source"),
        ({"source": source, "target": target[:, :2]}, r"shapes \(40, 3\) and \(40, 2\); \(n, d\) and \(m, d\)"),
        ({"source": source, "target": target * np.nan}, "not finite"),
        ({"source": source[:3], "target": target}, "four points at least"),
    ):
        np.savez(tmp_path / "wrong.npz", **wrong)
        with pytest.raises(DataError, match=said):
            UnpairedFile(str(tmp_path / "wrong.npz"), epsilon=0.5).load(seed=0)
    with pytest.raises(DataError, match=r"data\.path=none\.npz: there is no such file"):
        UnpairedFile("none.npz", epsilon=0.5).load(seed=0)


def test_modes_lie_on_a_ring():
    points = RingOfModes(n=2000, modes=4).load(seed=0).instance["target"]
    assert points.norm(dim=1).mean().item() == pytest.approx(3, abs=0.05)
    angles = torch.atan2(points[:, 1], points[:, 0]) / (torch.pi / 2)
    assert (angles - angles.round()).abs().max() < 0.3


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("epsilon", [0.1, 0.01])
def test_a_swiss_roll_is_reached(seed, epsilon):
    """At most 5 % of the source's energy distance is left; one component alone leaves more."""
    problem = SwissRoll(epsilon=epsilon).load(seed)
    many, one = (finished(begun(problem, seed, components=k)).solution() for k in (100, 1))
    assert problem.evaluate(many)["energy_share"] <= 0.05
    assert problem.evaluate(one)["energy_share"] > 0.05


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_of_many_components_recovers_the_gaussian_plan(seed):
    """Conditional moments within 5 % (cBW-UVP), in four dimensions, from fifty full components."""
    problem = GaussianPair(dimension=4).load(seed)
    options = {"components": 50, "covariance": "full", "initial_variance": 1.0, "steps": 1500, "learning_rate": 1e-2}
    assert problem.evaluate(finished(begun(problem, seed, **options)).solution())["plan_error"] < 5

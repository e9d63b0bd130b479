"""The tracker and the method: assignment, new tracks, forgetting, files, going on, and what it is all for."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from fisherexp.data.errors import DataError
from fisherexp.methods.tracking.discriminant import cosine
from fisherexp.methods.tracking.hat_reid import HATReID
from fisherexp.methods.tracking.tracker import Rules, Track, assigned, followed, likeness, renewed, similarity
from fisherexp.problems.tracking import SyntheticTracks, TrackFile


@pytest.fixture(scope="module")
def few():
    return SyntheticTracks(identities=4, frames=16, dimension=8, calm=6).load(seed=0)


def finished(problem, **options):
    method = HATReID(**options)
    method.begin(problem, 0)
    while not method.done:
        method.step()
    return method


def test_assignment_is_the_best_of_all_above_the_threshold():
    similarities = np.array([[0.9, 0.8], [0.85, 0.1]])
    assert assigned(similarities, 0.5) == [(0, 1), (1, 0)]  # greedy would give (0, 0)
    assert assigned(similarities, 0.82) == [(1, 0)]


def test_a_bidirectional_softmax_asks_both_sides():
    """By hand: two detections like the first track; it is nobody's alone, the second track is the second's."""
    one, other = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 2.0]])
    e = np.exp(1)  # inner products are 1, 0; 1, 2
    rows = [[e / (e + 1), 1 / (e + 1)], [1 / (1 + e), e / (1 + e)]]
    columns = [[0.5, 1 / (1 + e**2)], [0.5, e**2 / (1 + e**2)]]
    found = likeness(one, other, "bisoftmax")
    np.testing.assert_allclose(found, (np.array(rows) + columns) / 2)
    np.testing.assert_allclose(likeness(one, other, "mean"), (found + cosine(one, other)) / 2)
    np.testing.assert_array_equal(likeness(one, other, "cosine"), cosine(one, other))
    assert assigned(found, 0.5) == [(0, 0), (1, 1)]


def test_a_newcomer_begins_a_track_and_an_absent_one_is_forgotten():
    one, other = np.eye(3)[0], np.eye(3)[1]
    rules = Rules(memory=2)
    numbers, tracks = followed([], one[None], 0, 0, rules)
    assert numbers == [0]
    numbers, tracks = followed(tracks, np.stack([other, one]), 1, 1, rules)
    assert numbers == [1, 0]
    _, tracks = followed(tracks, other[None], 2, 2, rules)
    assert followed(tracks, one[None], 3, 2, rules)[0] == [0]
    assert followed(tracks, one[None], 4, 2, rules)[0] == [2]  # unseen for longer than two frames
    assert followed(tracks, np.empty((0, 3)), 3, 2, rules)[0] == []


def test_appearance_is_a_moving_average_and_history_the_last_ones():
    track = Track(0, np.zeros(2), 0, [np.zeros(2)])
    for frame in (1, 2, 3):
        track = renewed(track, np.full(2, float(frame)), frame, Rules(history=2, momentum=0.3))
    assert track.appearance[0] == pytest.approx(0.7 * (0.7 * 0.3 + 0.3 * 2) + 0.3 * 3)
    assert [feature[0] for feature in track.history] == [2, 3]


def test_too_little_history_and_a_single_track_leave_the_plain_similarity():
    draws = np.random.default_rng(0)
    features = draws.normal(size=(2, 5))
    tracks = [Track(i, features[i], 0, list(draws.normal(size=(4, 5)) + 5 * i)) for i in range(2)]
    plain = cosine(features, features)
    np.testing.assert_array_equal(similarity(features, tracks, Rules(factor=4)), plain)  # 8 are not more than 8
    np.testing.assert_array_equal(similarity(features, tracks[:1], Rules(factor=0)), plain[:, :1])
    found = similarity(features, tracks, Rules(factor=3))
    assert abs(found - plain).max() > 1e-3
    mixed = similarity(features, tracks, Rules(factor=3, mix=0.25))
    np.testing.assert_allclose(mixed, 0.25 * found + 0.75 * plain)
    scaled = similarity(features, tracks, Rules(factor=3, standardize=True))
    assert abs(scaled - found).max() > 1e-3  # centering changes cosines
    both = similarity(features, tracks, Rules(factor=3, mix=0.25, matching="bisoftmax"))
    halves = (similarity(features, tracks, Rules(factor=3, mix=mix, matching="bisoftmax")) for mix in (1.0, 0.0))
    np.testing.assert_allclose(both, 0.25 * next(halves) + 0.75 * next(halves))


@pytest.mark.parametrize("seed", range(3))
def test_a_newcomer_is_less_like_any_track_than_each_is_like_its_own(seed):
    """Sixteen tracks with 31 features each, and a seventeenth identity. A null: its best similarity, 0.62, 0.45 and
    0.62 for these seeds, is not always below the published threshold of 0.5; own ones are 0.88 and more."""
    problem = SyntheticTracks(identities=17, frames=32, calm=0).load(seed)
    features = problem.detections.features.numpy().reshape(32, 17, 64)
    tracks = [Track(i, features[30, i], 30, list(features[:31, i])) for i in range(16)]
    found, plain = (similarity(features[31], tracks, Rules(mix=mix)) for mix in (1.0, 0.0))
    assert found[16].max() < 0.7 < 0.85 < found[:16].diagonal().min()
    assert plain[16].max() > plain[:16].diagonal().min()  # the control


@pytest.mark.parametrize("stop", [1, 9])
def test_goes_on_bit_for_bit(stop, few, tmp_path):
    whole = finished(few).solution()
    method = HATReID()
    method.begin(few, 0)
    for _ in range(stop):
        method.step()
    torch.save(method.state_dict(), tmp_path / "state")
    resumed = HATReID()
    resumed.begin(few, 0)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    while not resumed.done:
        resumed.step()
    assert torch.equal(resumed.solution(), whole)
    assert len(whole) == len(few.detections.features)


def test_the_transformation_keeps_identities_apart_that_plain_features_confuse(tmp_path):
    problem = SyntheticTracks(identities=8, frames=40, dimension=32, nuisance=0.4, calm=20).load(seed=0)
    method = finished(problem)
    ours, plain = (problem.evaluate(some.solution()) for some in (method, finished(problem, mix=0.0)))
    assert ours["hota"] > 95
    assert plain["hota"] < 60
    method.leave_files(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"tracks.png", "tracks.pdf"}


def test_own_files(few, tmp_path):
    features, frames, identities = (part.numpy() for part in few.detections)
    np.savez(tmp_path / "mine.npz", features=3 * features, frames=frames + 7, identities=identities * 10)
    own = TrackFile(str(tmp_path / "mine.npz")).load(seed=0).detections
    np.testing.assert_allclose(own.features, features)
    assert torch.equal(own.identities, few.detections.identities)
    shuffled = np.random.default_rng(0).permutation(len(frames))
    lines = np.stack([frames, identities + 1, *[np.ones_like(frames)] * 5], axis=1)[shuffled]
    lines[0, 6] = 0  # not to be considered
    np.savetxt(tmp_path / "gt.txt", lines, delimiter=",", fmt="%d")
    np.save(tmp_path / "features.npy", features[shuffled])
    mot = TrackFile(str(tmp_path / "gt.txt"), str(tmp_path / "features.npy")).load(seed=0).detections
    assert len(mot.features) == len(frames) - 1
    assert (mot.frames.diff() >= 0).all()
    one = mot.features[(mot.frames == 3) & (mot.identities == 2)]
    np.testing.assert_allclose(one[0], features[(frames == 3) & (identities == 2)][0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frames": None}, r"has no frames; it has features, identities"),
        ({"frames": np.zeros(3)}, r"features \(64, 8\), frames \(3,\)"),
        ({"features": np.zeros((64, 8))}, "none of them all zeros"),
        ({"identities": np.zeros(64)}, "an identity is in a frame twice"),
    ],
)
def test_files_that_do_not_fit_are_refused(change, said, few, tmp_path):
    arrays = {name: part.numpy() for name, part in few.instance.items()} | change
    np.savez(tmp_path / "wrong.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DataError, match=said):
        TrackFile(str(tmp_path / "wrong.npz")).load(seed=0)


def oracle_accuracy(problem, identities, rules):
    """Share of detections of the later half given to their own track, where histories are the true ones."""
    return accuracy_of(problem.detections.features.numpy().reshape(-1, identities, problem.sizes["dimension"]), rules)


def accuracy_of(features, rules):
    """The same, of features (frames, identities, d)."""
    tracks = [Track(number, feature, 0, [feature]) for number, feature in enumerate(features[0])]
    right = []
    for frame, seen in enumerate(features[1:], start=1):
        if frame >= len(features) // 2:
            right.append(np.mean([i == j for i, j in assigned(similarity(seen, tracks, rules), -2)]))
        tracks = [renewed(track, seen[track.number], frame, rules) for track in tracks]
    return np.mean(right)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("nuisance", "most"), [(0.1, 1.0), (0.3, 0.55), (0.6, 0.2), (1.0, 0.2)])
def test_with_true_histories_only_the_transformed_features_tell(seed, nuisance, most):
    """Measured for seeds 0-2: all with the transformation; plain 0.996 to 1, 0.23-0.26, 0.09-0.12, 0.07-0.08."""
    problem = SyntheticTracks(nuisance=nuisance, calm=0).load(seed)
    ours, plain = (oracle_accuracy(problem, 16, Rules(history=30, mix=mix)) for mix in (1.0, 0.0))
    assert ours >= 0.9
    assert plain <= most
    assert (plain > 0.9) == (nuisance == 0.1)  # without a disturbance plain features tell, too


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_recency_weights_make_no_difference_to_identities_that_drift(seed):
    """With 16 dimensions, where there is room for a difference, none is found."""
    problem = SyntheticTracks(dimension=16, nuisance=0.6, calm=0, drift=0.1).load(seed)
    recent, plain = (oracle_accuracy(problem, 16, Rules(decay=decay)) for decay in (0.9, 1.0))
    assert 0.85 < min(recent, plain) < 0.995
    assert abs(recent - plain) < 0.04


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_no_variant_of_the_authors_code_is_better_where_tracks_are_hard_to_tell(seed):
    """With true histories in 16 dimensions. Measured for seeds 0-2: as published 0.741, 0.825, 0.891; remainder 0.678,
    0.794, 0.869; bidirectional softmax 0.647, 0.800, 0.775, its mean with the cosine 0.688, 0.866, 0.828; plain cosines
    0.169, 0.200, 0.147. Pairs are the same as means, for the histories are equally long."""
    problem = SyntheticTracks(frames=40, dimension=16, nuisance=0.6, calm=0, drift=0.1).load(seed)
    options = {"published": {}, "remainder": {"between": "remainder"}, "softmax": {"matching": "bisoftmax"}}
    options["plain"] = {"mix": 0.0}
    found = {name: oracle_accuracy(problem, 16, Rules(history=30, **some)) for name, some in options.items()}
    assert max(found["remainder"], found["softmax"]) < found["published"]
    assert min(found["remainder"], found["softmax"]) > found["plain"] + 0.4


def turned_digits(seed, degrees, identities=16, frames=60):
    """Features (frames, identities, 64) of images of digits, each turned at random in every frame, by a small CNN that
    was trained to tell the ten digits of other images, upright."""
    draws = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    digits = load_digits()
    images, labels = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    layers = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()]
    body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 64), nn.ReLU())
    network = nn.Sequential(body, nn.Linear(64, 10))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(15):
        for batch in torch.randperm(1200, generator=draws).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    chosen = 1200 + torch.randperm(len(images) - 1200, generator=draws)[:identities]
    angles = (2 * torch.rand(frames * identities, generator=draws) - 1) * math.radians(degrees)
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    turn = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    repeated = images[chosen].repeat(frames, 1, 1, 1)
    grid = functional.affine_grid(turn, repeated.shape, align_corners=False)
    with torch.no_grad():
        found = functional.normalize(body(functional.grid_sample(repeated, grid, align_corners=False)), dim=1)
    return found.double().numpy().reshape(frames, identities, -1)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_images_that_turn_are_told_by_the_transformed_features_of_a_network_that_knows_nothing_of_turning(seed):
    """Within 60 degrees either way. Measured for seeds 0-2: 0.919, 0.858, 0.904; plain 0.492, 0.504, 0.471."""
    features = turned_digits(seed, 60.0)
    ours, plain = (accuracy_of(features, Rules(history=30, mix=mix)) for mix in (1.0, 0.0))
    assert ours >= 0.8
    assert plain <= 0.6

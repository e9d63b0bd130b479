"""Data with domains: what colors, labels and folders are."""

import pytest
import torch
from PIL import Image

from fisherexp.data.colored import ColoredDigits, colored, first_domain
from fisherexp.data.domain_folder import DomainFolder
from fisherexp.data.errors import DataError
from fisherexp.data.rotated_mnist import turned
from fisherexp.data.tensors import TensorSet
from fisherexp.seeds import generator


def colors(images: TensorSet) -> torch.Tensor:
    """The channel that is not zero; images with both or none are an error."""
    lit = images.inputs.flatten(2).any(dim=2)
    assert lit.sum(dim=1).eq(1).all()
    return lit[:, 1].long()


def test_colors_and_labels_flip_as_often_as_said():
    domains = ColoredDigits().domains(seed=0)
    assert [len(images) for images in domains.values()] == [700, 700, 397, 397]
    for name, flip in (("e20", 0.2), ("e10", 0.1), ("e90", 0.9)):
        images = domains[name]
        share = (colors(images) != images.targets).double().mean().item()
        assert abs(share - flip) < 4 * (flip * (1 - flip) / len(images)) ** 0.5


def test_without_label_noise_the_label_is_the_digit(monkeypatch):
    data = ColoredDigits(label_flip=0.0)
    gray = data.domains(seed=0)["gray"]
    digits = data.read_gray()[1]
    assert torch.equal(gray.targets, (digits.targets < 5).long())
    assert torch.equal(gray.inputs[:, :1], digits.inputs)
    assert torch.equal(gray.inputs[:, 1], gray.inputs[:, 0])


def test_gray_and_target_are_the_same_digits_with_the_same_labels():
    domains = ColoredDigits().domains(seed=3)
    assert torch.equal(domains["e90"].targets, domains["gray"].targets)
    assert torch.equal(domains["e90"].inputs.sum(dim=1), domains["gray"].inputs[:, 0].long())


def test_every_restart_draws_anew():
    data = ColoredDigits()
    one, again, other = (data.domains(seed)["e20"] for seed in (1, 1, 2))
    assert torch.equal(one.inputs, again.inputs)
    assert not torch.equal(one.targets, other.targets)


@pytest.mark.parametrize(
    ("imbalance", "expected"),
    # (below 5, others) in the first domain; the classes have 25,538 and 24,462 members, as in MNIST's first 50,000.
    [("none", None), ("intended", (24_772, 734)), ("official", (25_538, 1_500))],
)
def test_sizes_of_imbalanced_domains(imbalance, expected):
    below = torch.zeros(50_000, dtype=torch.bool)
    below[torch.randperm(50_000, generator=generator("test"))[:25_538]] = True
    first = first_domain(below, imbalance, 0.97)
    if expected is None:
        assert torch.equal(first, torch.arange(50_000) % 2 == 0)
    else:
        assert ((first & below).sum().item(), (first & ~below).sum().item()) == expected


def test_color_of_certain_flips():
    gray = torch.full((3, 1, 2, 2), 7, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 1])
    for flip, channel in ((0.0, labels), (1.0, 1 - labels)):
        found = colored(gray, labels, flip, generator("test"))
        assert torch.equal(colors(found), channel)
        assert found.inputs.max() == 7


def test_an_empty_training_domain_is_refused():
    with pytest.raises(DataError, match=r"data.majority=1.0 leaves a training domain"):
        ColoredDigits(imbalance="official", majority=1.0, train_images=1).domains(0)


def test_a_quarter_turn_is_a_quarter_turn():
    images = TensorSet(torch.randint(256, (4, 1, 6, 6), dtype=torch.uint8), torch.arange(4))
    assert torch.equal(turned(images, 90.0).inputs, images.inputs.rot90(1, (2, 3)))
    assert turned(images, 0.0) is images


@pytest.fixture
def folder(tmp_path):
    for domain, kind, count in (("art", "cat", 3), ("art", "dog", 2), ("photo", "cat", 4)):
        place = tmp_path / domain / kind
        place.mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (9, 9), (i, 0, 200 if domain == "art" else 0)).save(place / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("in_memory", [True, False])
def test_folder_of_domains(folder, in_memory):
    data = DomainFolder(str(folder), image_size=8, in_memory=in_memory).load()
    domains = data.domains(0)
    assert {name: len(images) for name, images in domains.items()} == {"art": 5, "photo": 4}
    assert data.class_names == ["cat", "dog"]
    assert domains["art"].targets.tolist() == [0, 0, 0, 1, 1]
    batch = next(iter(data.loader(domains["art"], shuffle=False)))
    assert batch.inputs[:, 2].eq(200).all()
    assert (len(data.train), len(data.test)) == (5, 4)  # photo, the last one, is what a scenario without domains tests


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_part_of_each_domain(folder, in_memory):
    parts = [
        DomainFolder(str(folder), image_size=8, in_memory=in_memory, images_per_domain=4, seed=seed).domains(0)
        for seed in (0, 0, 1, 2, 3)
    ]
    targets = [part["art"].targets.tolist() for part in parts]
    assert targets[0] == targets[1]
    assert {len(found) for found in targets} == {len(part["photo"]) for part in parts} == {4}
    assert len(set(map(tuple, targets))) == 2  # a cat is left out, or a dog
    assert DomainFolder(str(folder), images_per_domain=4).altered
    assert not DomainFolder(str(folder)).altered


def test_folder_with_one_domain(folder):
    (folder / "photo").rename(folder / "art" / "horse")
    with pytest.raises(DataError, match="at least two"):
        DomainFolder(str(folder)).load()


def test_validation_belongs_to_the_scenario():
    with pytest.raises(DataError, match=r"scenario\.holdout"):
        ColoredDigits(validation=0.1).load()

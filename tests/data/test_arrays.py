"""The user's .npz: every accepted layout gives the same images, every malformation one clear line."""

import numpy as np
import pytest
import torch

from fisherexp.data.arrays import Arrays, channel_statistics
from fisherexp.data.errors import DataError

RANDOM = np.random.RandomState(0)
TRAIN, TEST = (RANDOM.randint(0, 256, (n, 3, 6, 5), np.uint8) for n in (12, 4))


def arrays(**changes) -> dict[str, np.ndarray]:
    """A well-formed file's content, with changes; None leaves an array out."""
    content = {
        "train_images": TRAIN,
        "train_labels": np.arange(12) % 4,
        "test_images": TEST,
        "test_labels": np.arange(4),
    }
    return {name: value for name, value in (content | changes).items() if value is not None}


def load(tmp_path, content, **options) -> Arrays:
    np.savez(tmp_path / "mine.npz", **content)
    return Arrays(str(tmp_path / "mine.npz"), **options).load()


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x,
        lambda x: x.transpose(0, 2, 3, 1),
        lambda x: x / 255,
        lambda x: (x / 255).astype(np.float32),
        lambda x: x.transpose(0, 2, 3, 1) / 255,
    ],
    ids=["NCHW", "NHWC", "float64", "float32", "float NHWC"],
)
def test_every_layout_gives_the_same_images(tmp_path, layout):
    data = load(tmp_path, arrays(train_images=layout(TRAIN), test_images=layout(TEST)))
    assert torch.equal(data.train.inputs, torch.from_numpy(TRAIN))
    assert torch.equal(data.test.inputs, torch.from_numpy(TEST))
    assert data.train.inputs.is_contiguous()
    assert data.train.targets.dtype == torch.int64
    assert data.input_shape == (3, 6, 5)


def test_images_without_channels_have_one(tmp_path):
    data = load(tmp_path, arrays(train_images=TRAIN[:, 0], test_images=TEST[:, 0]))
    assert torch.equal(data.train.inputs, torch.from_numpy(TRAIN[:, :1]))


def test_what_the_file_does_not_say_is_filled_in(tmp_path):
    data = load(tmp_path, arrays())
    assert data.num_classes == 4
    assert data.class_names == ["0", "1", "2", "3"]
    assert data.mean == pytest.approx((TRAIN / 255).mean((0, 2, 3)))
    assert data.std == pytest.approx((TRAIN / 255).std((0, 2, 3)))
    assert load(tmp_path, arrays(), num_classes=9).num_classes == 9


def test_an_empty_channel_has_a_positive_deviation():
    mean, std = channel_statistics(torch.zeros(3, 1, 2, 2, dtype=torch.uint8))
    assert mean == [0]
    assert std[0] > 0


def test_path_may_be_relative_to_the_data_folder(tmp_path, monkeypatch):
    load(tmp_path, arrays())
    assert len(Arrays("mine.npz", root=str(tmp_path)).load().train) == 12
    monkeypatch.chdir(tmp_path)
    assert len(Arrays("mine.npz", root="/nowhere").load().train) == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_labels": None}, "has no test_labels; it has train_images, train_labels, test_images"),
        ({"train_images": None, "test_labels": None}, "has no train_images and no test_labels"),
        ({"train_images": TRAIN.astype(np.int32)}, "train_images have type int32; uint8, or floats"),
        ({"train_images": TRAIN.astype(float)}, "train_images are floats from 0 to 255; floats must be in"),
        ({"test_images": TEST / 255 - 0.5}, "test_images are floats from -0.5 to 0.5"),
        ({"test_images": np.full(TEST.shape, np.nan)}, "test_images are floats from nan to nan"),
        ({"train_images": TRAIN[:, :2]}, r"train_images have shape \(12, 2, 6, 5\)"),
        (
            {"train_images": TRAIN[..., :3]},
            r"train_images have shape \(12, 3, 6, 3\)",
        ),  # which axis is color?
        ({"train_images": TRAIN.reshape(12, -1)}, r"train_images have shape \(12, 90\)"),
        (
            {"train_images": TRAIN[:0], "train_labels": np.arange(0)},
            r"train_images is empty: shape \(0, 3, 6, 5\)",
        ),
        ({"test_images": TEST[:, :, :4]}, r"train_images are \(3, 6, 5\) .* but test_images are \(3, 4, 5\)"),
        ({"train_labels": np.arange(11)}, r"train_labels have shape \(11,\), but there are 12 images"),
        ({"train_labels": np.eye(12)}, r"train_labels have shape \(12, 12\)"),
        ({"train_labels": np.arange(12.0)}, "train_labels have type float64; integers"),
        ({"test_labels": np.array([0, 1, 7, 9])}, r"test_labels must be in 0…3; 2 are not, e.g. 7"),
        ({"train_labels": np.arange(12) - 1}, r"train_labels must be in 0…3; 8 are not, e.g. -1"),
        ({"train_labels": np.array([{}] * 12)}, "object arrays are not read"),
    ],
)
def test_malformations_are_one_line(tmp_path, changes, message):
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, arrays(**changes), num_classes=4)
    assert "\n" not in str(caught.value)
    assert "mine.npz" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_npz_is_one_line(tmp_path, content):
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"mine.npz is not a readable .npz file of plain arrays: [^\n]+$"):
        Arrays(str(tmp_path / "mine.npz")).load()


def test_a_torn_file_is_one_line(tmp_path):
    load(tmp_path, arrays())
    whole = (tmp_path / "mine.npz").read_bytes()
    for length in (len(whole) // 2, len(whole) - 10):
        (tmp_path / "mine.npz").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"mine.npz is not a readable .npz file of plain arrays: [^\n]+$"):
            Arrays(str(tmp_path / "mine.npz")).load()


def test_a_single_array_is_one_line(tmp_path):
    np.save(tmp_path / "mine.npy", TRAIN)
    with pytest.raises(DataError, match=r"holds one array; an \.npz file with train_images, .* is expected"):
        Arrays(str(tmp_path / "mine.npy")).load()


def test_a_missing_file_names_where_it_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=f"there is no 'mine.npz' in .* or {tmp_path}; set data.path"):
        Arrays("mine.npz", root=str(tmp_path)).load()


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int32, np.uint64])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_labels_of_any_integer_type_are_the_same(kind, shape, tmp_path):
    labels = {"train_labels": (np.arange(12) % 4).astype(kind).reshape(shape)}
    data = load(tmp_path, arrays(**labels))
    assert data.train.targets.tolist() == [0, 1, 2, 3] * 3
    assert data.train.targets.dtype == torch.int64


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        (
            {},
            {"train_labels": np.arange(12) % 4 + 1, "test_labels": np.arange(4) + 1},
            "labels begin at 1, .*subtract 1",
        ),
        (
            {"num_classes": 4},
            {"train_labels": np.arange(12) % 4 + 1, "test_labels": np.arange(4) + 1},
            r"in 0…3; 3 are not, e\.g\. 4; subtract 1$",
        ),
        ({}, {"train_labels": np.where(np.arange(12) == 5, -100, 1)}, r"1 are not, e\.g\. -100; leave out samples"),
        ({}, {"train_labels": np.eye(12)[:, :5]}, r"shape \(12, 5\), but there are 12 images; \(12,\) is expected$"),
        ({}, {"train_labels": np.eye(4)[np.arange(12) % 4]}, r"one-hot: save labels\.argmax\(1\)$"),
        ({}, {"train_labels": np.eye(4, dtype=np.uint8)[np.arange(12) % 4]}, r"one-hot: save labels\.argmax\(1\)$"),
        ({}, {"train_labels": np.arange(12.0) % 4}, r"type float64; .*whole: save labels\.astype\(int\)$"),
        ({}, {"train_labels": np.arange(12.0) / 12}, "type float64; integers are expected$"),
        ({}, {"train_labels": np.array([np.nan] * 12)}, "type float64; integers are expected$"),
        ({}, {"train_labels": np.array(["cat"] * 12)}, "integers are expected$"),
    ],
)
def test_labels_that_mean_something_else_are_one_line(options, changes, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, arrays(**changes), **options)
    assert "\n" not in str(caught.value)


def test_an_empty_first_class_may_be_meant(tmp_path):
    labels = {"train_labels": np.arange(12) % 4 + 1, "test_labels": np.arange(4) + 1}
    assert load(tmp_path, arrays(**labels), num_classes=5).train.targets.min() == 1


def test_damage_anywhere_in_a_compressed_file_is_one_line(tmp_path):
    """Or is not met at all: never another error, never other values."""
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **arrays())
    intact, sound, messages = path.read_bytes(), Arrays(str(path)).load(), []
    for place in range(0, len(intact), 13):
        path.write_bytes(intact[:place] + bytes([intact[place] ^ 0x55]) + intact[place + 1 :])
        try:
            data = Arrays(str(path)).load()
        except DataError as error:
            messages.append(str(error))
        else:
            assert torch.equal(data.train.inputs, sound.train.inputs)
            assert torch.equal(data.test.targets, sound.test.targets)
    assert len(messages) > 50
    assert all(message.startswith(str(path)) and "\n" not in message for message in messages)

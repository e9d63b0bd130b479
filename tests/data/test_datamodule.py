"""The common face of data sets, shown on digits."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from config_files import options_of
from hydra.utils import get_class
from sklearn.datasets import load_digits

from fisherexp.config.declared import declared
from fisherexp.data.datamodule import data_folder
from fisherexp.data.digits import Digits
from fisherexp.data.errors import DataError

CONF = Path(__file__).parents[2] / "conf" / "data"
CONFIGS = sorted(path.stem for path in CONF.glob("*.yaml"))


def test_digits_are_the_digits_of_scikit_learn():
    data = Digits().load()
    assert (len(data.train), len(data.test)) == (1200, 597)
    assert data.train.inputs.dtype == torch.uint8
    assert data.train.targets.dtype == torch.int64
    assert data.train.inputs.shape[1:] == data.input_shape == (1, 8, 8)
    images = torch.cat([data.train.inputs, data.test.inputs])[:, 0].numpy()
    labels = torch.cat([data.train.targets, data.test.targets]).numpy()
    back = np.rint(images.reshape(-1, 64) / 255 * 16)  # 0…16 survives the 256 steps exactly
    key = lambda rows: sorted(map(tuple, rows))  # noqa: E731
    original = load_digits()
    assert key(np.c_[back, labels]) == key(np.c_[original.data, original.target])


def test_declared_statistics_are_those_of_the_training_images():
    data = Digits().load()
    intensities = data.train.inputs.double() / 255
    assert intensities.mean().item() == pytest.approx(data.mean[0], abs=1e-4)
    assert intensities.std(unbiased=False).item() == pytest.approx(data.std[0], abs=1e-4)
    assert data.class_names == [str(k) for k in range(data.num_classes)]


def test_the_split_of_digits_is_fixed():
    assert Digits().checksum() == Digits(seed=5, batch_size=1).checksum() == "0c9a875f9a767c17"


def test_loading_twice_reads_once(monkeypatch):
    data = Digits().load()
    monkeypatch.setattr(Digits, "read", lambda self: pytest.fail("read again"))
    assert data.load() is data
    data.setup("fit")


def test_validation_is_a_seeded_part_of_train():
    whole, data = Digits().load(), Digits(validation=0.25, seed=1).load()
    assert whole.validation is None
    assert (len(data.train), len(data.validation), len(data.test)) == (900, 300, 597)
    parts = torch.cat([data.train.inputs, data.validation.inputs]).flatten(1)
    assert sorted(map(tuple, parts.tolist())) == sorted(map(tuple, whole.train.inputs.flatten(1).tolist()))
    assert data.checksum() == Digits(validation=0.25, seed=1).checksum()
    assert data.checksum() not in (whole.checksum(), Digits(validation=0.25, seed=2).checksum())


def test_validation_may_not_take_everything():
    with pytest.raises(DataError, match=r"^data.validation=1.0 leaves no training samples$"):
        Digits(validation=1.0).load()


def test_train_size_keeps_a_seeded_part_of_train():
    whole, data = Digits().load(), Digits(train_size=100, seed=1).load()
    assert (len(data.train), len(data.test)) == (100, 597)
    rows = {tuple(image) for image in whole.train.inputs.flatten(1).tolist()}
    assert all(tuple(image) in rows for image in data.train.inputs.flatten(1).tolist())
    assert data.checksum() == Digits(train_size=100, seed=1).checksum()
    assert data.checksum() != Digits(train_size=100, seed=2).checksum()
    with pytest.raises(DataError, match=r"^data.train_size=1201: there are only 1200 training samples$"):
        Digits(train_size=1201).load()


@pytest.mark.parametrize("change", ["inputs", "targets"])
def test_checksum_sees_one_changed_value(change):
    data = Digits().load()
    getattr(data.test, change).view(-1)[-1] += 1
    assert data.checksum() != Digits().checksum()


def test_subset_keeps_images_with_labels():
    train = Digits().load().train
    chosen = (train.targets == 3).nonzero()[:, 0]
    subset = train.subset(chosen)
    assert len(subset) == len(chosen)
    assert (subset.targets == 3).all()
    assert torch.equal(subset.inputs, train.inputs[train.targets == 3])
    assert torch.equal(train.subset([4, 2]).inputs, train.inputs[[4, 2]])


def test_loader_defaults():
    data = Digits(batch_size=32, eval_batch_size=100, augment="crop", seed=7).load()
    training, evaluation = data.loader(data.train, shuffle=True), data.loader(data.test, shuffle=False)
    assert (training.batch_size, training.seed, training.augment) == (32, 7, "none")
    assert (evaluation.batch_size, len(evaluation)) == (100, 6)
    assert data.loader(data.train, shuffle=True, augment=True, seed=0).augment == "crop"
    assert data.loader(data.train, shuffle=True, augment=True, seed=0).seed == 0
    assert len(data.loader(data.train, shuffle=True, batch_size=128, drop_last=True)) == 9


class Looks(pl.LightningModule):
    """Records the labels it is shown."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = {"train": [], "val": [], "test": []}

    def training_step(self, batch, _):
        self.seen["train"].append(batch[1].tolist())
        return self.weight.sum()

    def validation_step(self, batch, _):
        self.seen["val"] += batch[1].tolist()

    def test_step(self, batch, batch_idx):
        self.seen["test"] += batch[1].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


@pytest.mark.filterwarnings("ignore")
def test_lightning_takes_it_as_its_datamodule():
    data, model = Digits(validation=0.1), Looks()
    trainer = pl.Trainer(max_epochs=1, **QUIET)
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    assert sorted(chain(*model.seen["train"])) == sorted(data.train.targets.tolist())
    assert model.seen["val"] == data.validation.targets.tolist()
    assert model.seen["test"] == data.test.targets.tolist()


@pytest.mark.filterwarnings("ignore")
def test_overfitting_repeats_the_same_batches():
    model = Looks()
    pl.Trainer(max_epochs=2, overfit_batches=2, **QUIET).fit(model, Digits(augment="crop"))
    assert len(model.seen["train"]) == 4
    assert model.seen["train"][:2] == model.seen["train"][2:]


def test_data_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("FISHEREXP_DATA", raising=False)
    assert data_folder(None) == Path.home() / ".cache" / "fisherexp"
    monkeypatch.setenv("FISHEREXP_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path
    assert data_folder("~/elsewhere") == Path.home() / "elsewhere"


@pytest.mark.parametrize("name", CONFIGS)
def test_config_lists_every_option_and_says_what_it_is(name):
    text = (CONF / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    options = options_of(CONF / f"{name}.yaml")
    target = options.pop("_target_")
    face = declared(target)
    assert set(options) == set(face.parameters)
    assert not face.open
    assert all(face.parameters.values())
    # Read from the source as it is in the class; instances to solve and environments have none.
    assert face.attributes.get("title") == getattr(get_class(target), "title", None)

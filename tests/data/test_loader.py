"""Order, ranks, position and resuming of loaders."""

from itertools import chain

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from fisherexp.data.batch import joined
from fisherexp.data.tensors import TensorLoader, TensorSet

N = 37
IMAGES = torch.arange(N * 64, dtype=torch.int64).remainder(251).to(torch.uint8).view(N, 1, 8, 8)
LABELS = torch.arange(N)


def make(**options) -> TensorLoader:
    return TensorLoader(TensorSet(IMAGES, LABELS), options.pop("batch_size", 5), **options)


def labels_of(loader) -> list[int]:
    return [int(label) for batch in loader for label in batch.targets]


def same(batches, others) -> bool:
    return len(batches) == len(others) and all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
        for a, b in zip(batches, others, strict=True)
    )


def test_an_epoch_is_a_permutation_and_epochs_differ():
    loader = make(shuffle=True)
    first, second = labels_of(loader), labels_of(loader)
    assert sorted(first) == sorted(second) == list(range(N))
    assert first != second
    assert first != list(range(N))


def test_images_travel_with_their_labels():
    for batch in make(shuffle=True):
        assert torch.equal(batch.inputs, IMAGES[batch.targets])


def test_in_order_without_shuffling():
    assert labels_of(make()) == list(range(N))
    assert labels_of(make(indices=[7, 3, 30])) == [7, 3, 30]


def test_indices_are_a_subset_of_the_set():
    chosen = [1, 5, 8, 13, 21, 34]
    assert sorted(labels_of(make(indices=chosen, shuffle=True))) == chosen
    assert labels_of(TensorSet(IMAGES, LABELS).subset(chosen).loader(4)) == chosen


@pytest.mark.parametrize("augment", [None, "crop_flip_rotate"])
def test_same_seed_same_batches_other_seed_others(augment):
    options = {"shuffle": True, "augment": augment}
    assert same(list(make(seed=3, **options)), list(make(seed=3, **options)))
    assert not same(list(make(seed=3, **options)), list(make(seed=4, **options)))


def test_global_random_state_is_neither_used_nor_changed():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one = list(make(shuffle=True, augment="crop_flip_rotate"))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert same(one, list(make(shuffle=True, augment="crop_flip_rotate")))


def test_epoch_three_does_not_need_epochs_one_and_two():
    through = make(shuffle=True, augment="crop_flip")
    epochs = [list(through) for _ in range(4)]
    jump = make(shuffle=True, augment="crop_flip")
    jump.set_epoch(3)
    assert same(list(jump), epochs[3])
    jump.set_epoch(1)
    assert same(list(jump), epochs[1])


def test_a_second_pass_in_an_announced_epoch_is_not_the_next_epoch():
    loader = make(shuffle=True)
    passes = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        passes += [tuple(labels_of(loader)) for _ in range(3)]
    assert len(set(passes)) == 6


@pytest.mark.parametrize("stop", range(9))
def test_a_restored_loader_gives_what_was_left(stop):
    """Wherever the first process stopped, at an epoch's start and end too, the two halves make the whole."""
    options = {"shuffle": True, "augment": "crop_flip_rotate", "seed": 5}
    whole = make(**options)
    expected = [batch for _ in range(3) for batch in whole]

    first = make(**options)
    seen = list(first)
    if stop:
        iterator = iter(first)
        seen += [next(iterator) for _ in range(stop)]
    second = make(**options)
    second.load_state_dict(first.state_dict())
    while len(seen) < len(expected):
        rest = list(second)
        assert rest, "an empty pass"
        seen += rest
    assert same(seen, expected)


def test_position_is_plain_integers():
    loader = make(shuffle=True)
    next(iter(loader))
    assert loader.state_dict() == {"epoch": 0, "repeat": 0, "batch": 1}


@pytest.mark.parametrize(("drop_last", "batches", "items"), [(False, 8, 37), (True, 7, 35)])
def test_length_counts_batches(drop_last, batches, items):
    loader = make(drop_last=drop_last, shuffle=True)
    assert len(loader) == len(list(loader)) == batches
    assert len(labels_of(loader)) == items


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_share_an_evaluation_disjointly_and_exhaustively(world_size):
    loaders = [make(rank=rank, world_size=world_size) for rank in range(world_size)]
    parts = [labels_of(loader) for loader in loaders]
    assert sorted(chain(*parts)) == list(range(N))
    assert [len(loader) for loader in loaders] == [-(-len(part) // 5) for part in parts]


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_train_on_disjoint_parts_of_equal_length(world_size):
    parts = [labels_of(make(rank=r, world_size=world_size, shuffle=True)) for r in range(world_size)]
    assert {len(part) for part in parts} == {N // world_size}
    assert len(set(chain(*parts))) == sum(map(len, parts))


def test_two_ranks_together_see_the_batches_of_one_process_with_twice_the_batch_size():
    options = {"shuffle": True, "augment": "crop_flip", "drop_last": True}
    alone = list(make(batch_size=10, **options))
    ranks = [list(make(batch_size=5, rank=r, world_size=2, **options)) for r in range(2)]
    for batch, first, second in zip(alone, *ranks, strict=True):
        assert torch.equal(batch.targets, torch.stack([first.targets, second.targets], 1).flatten())
        assert torch.equal(batch.inputs, torch.stack([first.inputs, second.inputs], 1).flatten(0, 1))


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"rank": 2, "world_size": 2}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        make(**wrong)


class Tiny(pl.LightningModule):
    """SGD with momentum and no randomness of its own: the end depends on the order of the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        torch.nn.init.constant_(self.layer.weight, 0.01)
        torch.nn.init.zeros_(self.layer.bias)
        self.seen: list[list[int]] = []

    def training_step(self, batch, _):
        if isinstance(batch, dict):
            batch = joined(list(batch.values()))
        self.seen.append(batch.targets.tolist())
        return F.cross_entropy(self.layer(batch.inputs.flatten(1) / 255), batch.targets % 10)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Dies(Exception):
    pass


def fit(tmp_path, *, die_at=None, resume=None, every=1, beside=False, **trainer_options):
    model = Tiny()

    class Killer(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if trainer.global_step == die_at:
                raise Dies

    checkpoints = pl.callbacks.ModelCheckpoint(
        tmp_path, filename="last", every_n_train_steps=every, save_top_k=1, enable_version_counter=False
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Killer(), checkpoints],
        **trainer_options,
    )
    loader = make(shuffle=True, augment="crop_flip_rotate")
    if beside:
        loader = {"long": loader, "short": make(shuffle=True, indices=range(11), batch_size=4)}
    if die_at is None:
        trainer.fit(model, loader, ckpt_path=resume, weights_only=True if resume else None)
    else:
        with pytest.raises(Dies):
            trainer.fit(model, loader)
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "limit",
    [
        {"max_epochs": 3},
        {"max_steps": 24},
        {"max_epochs": 3, "limit_train_batches": 6},
        {"max_epochs": 3, "beside": True},  # a loader of 3 batches goes round beside one of 8
    ],
)
@pytest.mark.parametrize(("die_at", "every"), [(1, 1), (8, 1), (11, 1), (11, 3), (13, 1), (16, 1), (17, 2)])
def test_lightning_resumes_in_mid_epoch_bit_for_bit(tmp_path, limit, die_at, every):
    """Killed before step `die_at`, resumed from the last of the checkpoints made every `every` steps."""
    whole = fit(tmp_path / "whole", **limit)
    killed = fit(tmp_path / "killed", die_at=die_at, every=every, **limit)
    resumed = fit(tmp_path / "killed", resume=tmp_path / "killed" / "last.ckpt", **limit)
    assert killed.seen[: die_at // every * every] + resumed.seen == whole.seen
    assert torch.equal(resumed.layer.weight, whole.layer.weight)
    assert torch.equal(resumed.layer.bias, whole.layer.bias)

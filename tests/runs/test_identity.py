"""What names a run: everything that can change its result and nothing else."""

import pytest

from fisherexp.config.explain import composed
from fisherexp.content import look_again
from fisherexp.runs.identity import identity, is_audited, name_of, references, run_folder


def name(*overrides: str) -> str:
    return identity(composed(list(overrides)))


@pytest.mark.parametrize(
    "cosmetic",
    [
        "logger=[csv,tensorboard]",
        "threads=2",
        "output_dir=elsewhere",
        "rerun=true",
        "progress=off",
        "checkpoint_every=1",
        "data.root=/somewhere",
        "trainer=cpu",
        "trainer.profiler=simple",
    ],
)
def test_cosmetic_options_change_nothing(cosmetic):
    assert name(cosmetic) == name()


@pytest.mark.parametrize(
    "semantic",
    [
        "seed=1",
        "method=finetune",
        "method.alpha_relative=0.5",
        "method.importance.batch_size=8",
        "model.width=16",
        "scenario.classes=[4]",
        "training.epochs=31",
        "data.batch_size=32",
        "data.augment=crop",
        "trainer.precision=64-true",
        "trainer=debug",
    ],
)
def test_options_that_matter_change_the_name(semantic):
    assert name(semantic) != name()


def test_references_count_only_where_they_are_used():
    plain = ["method=erm", "scenario=none"]
    assert name(*plain, "method@oracle=erm") == name(*plain)
    assert name("method@oracle=erm") != name()
    assert references(composed(plain)) == set()
    assert references(composed([])) == {"source", "oracle"}


def test_the_audit_counts_only_where_it_looks():
    plain = ["method=erm", "scenario=none"]
    assert name(*plain, "audit.oracles=3") == name(*plain, "audit=lira") == name(*plain)
    assert len({name(), name("audit.oracles=3"), name("audit=lira"), name("audit=u_lira")}) == 4
    assert not is_audited(composed(plain))
    assert not is_audited(composed(["audit=none"]))
    assert is_audited(composed([]))


def test_the_same_question_in_other_words_is_the_same_run():
    assert name("training.lr=5e-2", "method=ssd") == name("seed=0")


def test_a_changed_file_is_another_experiment(tmp_path):
    file = tmp_path / "mine.npz"
    options = ["data=arrays", f"data.path={file}", "data.num_classes=10"]
    file.write_bytes(b"one")
    before = name(*options)
    file.write_bytes(b"another")
    assert name(*options) == before  # a run keeps its name to its end
    look_again()
    assert name(*options) != before


@pytest.mark.parametrize(
    ("overrides", "node", "expected"),
    [
        (["data=fashion_mnist"], "data", "fashion_mnist"),
        (["data=cifar10"], "data", "cifar10"),
        (["data=image_folder", "data.path=x"], "data", "image_folder"),
        (["model=small_cnn"], "model", "small_cnn"),
        (["model=resnet18"], "model", "resnet18"),
        (["model=wide_resnet"], "model", "wide_resnet"),
        (["scenario=class_forgetting"], "scenario", "class_forgetting"),
        (["method=ssd"], "method", "ssd"),
    ],
)
def test_short_names_are_those_of_the_config(overrides, node, expected):
    assert name_of(composed(overrides), node) == expected


def test_folder():
    cfg = composed(["output_dir=there"])
    assert run_folder(cfg).parts[:3] == ("there", "ssd", "digits")


def test_published_images_that_turn_up_are_another_experiment(tmp_path):
    stream = ["data=cifar10", f"data.root={tmp_path}", "method=erm", "scenario=continual"]
    before = identity(composed(stream))
    assert before == identity(composed([*stream, "scenario.published=null"]))
    (tmp_path / "CIFAR-10-C").mkdir()
    after = identity(composed(stream))
    assert after != before
    assert after == identity(composed([*stream, "scenario.published=CIFAR-10-C"]))

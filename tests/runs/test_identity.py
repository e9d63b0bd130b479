"""What names a run: everything that can change its result and nothing else."""

import os

import pytest

from fisherexp.config.explain import composed
from fisherexp.content import look_again
from fisherexp.runs.identity import identity, is_audited, name_of, references, run_folder, semantic


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


def test_what_changes_memory_alone_changes_no_name():
    texts = ["model=smollm2", "data=text_files", "data.path=it.txt", "method=erm", "scenario=none"]
    assert name(*texts, "model.gradient_checkpointing=true") == name(*texts)
    assert name(*texts, "model.dtype=bfloat16") != name(*texts)


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
        (["method=harpg"], "method", "harpg"),
        (["method=n_harpg"], "method", "n_harpg"),
        (["method=harpg", "data=gymnasium", "data.name=ALE/Pong-v5"], "data", "ALE_Pong-v5"),
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


def image_folder(root, classes):
    for path in classes:
        (root / path).mkdir(parents=True)
        (root / path / "0.png").write_bytes(path.encode())


# What a user may name, as (options; {at} is where it lies, absolute or below the data folder), and how it is made.
NAMED = {
    "arrays": (["data=arrays", "data.path={at}"], lambda at: at.write_bytes(b"one")),
    "image folder": (["data=image_folder", "data.path={at}"], lambda at: image_folder(at, ["cat", "dog"])),
    "imagenet": (["data=imagenet", "data.path={at}"], lambda at: image_folder(at, ["train/cat", "val/cat"])),
    "list of test images": (["data=imagenet", "data.test_list={at}"], lambda at: at.write_bytes(b"one")),
    "table": (["data=csv", "data.path={at}", "data.target=a", "model=mlp"], lambda at: at.write_bytes(b"one")),
    "table of test rows": (
        ["data=csv", "data.path=t.csv", "data.test_path={at}", "data.target=a", "model=mlp"],
        lambda at: at.write_bytes(b"one"),
    ),
    "domains": (["data=domain_folder", "data.path={at}"], lambda at: image_folder(at, ["art/cat", "photo/cat"])),
    "pacs": (["data=pacs", "data.path={at}"], lambda at: image_folder(at, ["art/cat", "photo/cat"])),
    "text": (["data=tiny_shakespeare", "data.path={at}", "model=char_gpt"], lambda at: at.write_bytes(b"one")),
    "frost": (["scenario=continual", "scenario.frost_textures={at}"], lambda at: image_folder(at, ["frost"])),
    "corruptions": (["scenario=continual", "scenario.published={at}"], lambda at: image_folder(at, ["fog/5"])),
}


def name_now(*overrides: str) -> str:
    look_again()
    return name("method=erm", *overrides)


@pytest.mark.parametrize("below_data_folder", [True, False])
@pytest.mark.parametrize(("options", "make"), NAMED.values(), ids=NAMED)
def test_content_of_what_the_user_names_decides_wherever_it_lies(options, make, below_data_folder, tmp_path):
    at = tmp_path / "mine"
    make(at)
    named = [o.format(at="mine" if below_data_folder else at) for o in [*options, f"data.root={tmp_path}"]]
    before = name_now(*named)
    assert name_now(*named) == before
    file = at if at.is_file() else sorted(at.rglob("*.png"))[0]
    kept, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(bytes(reversed(kept)))
    os.utime(file, ns=times)  # of the same size and date
    assert name_now(*named) != before
    file.write_bytes(kept)
    assert name_now(*named) == before


def test_moving_the_users_files_changes_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "mine.npz"
    file.write_bytes(b"one")
    before = name_now("data=arrays", f"data.path={file}")
    moved = file.rename(tmp_path / "mine.npz")
    assert name_now("data=arrays", f"data.path={moved}") == before
    assert name_now("data=arrays", "data.path=mine.npz", f"data.root={tmp_path}") == before


OWN_DATA = """
from fisherexp.data.datamodule import LabeledData

class Own(LabeledData):
    paths = ("table",)
    files = ("notes/labels.csv",)
    def __init__(self, table: str, **options):
        super().__init__(**options)
"""


def test_a_class_of_the_users_own_declares_what_it_reads(tmp_path, monkeypatch):
    (tmp_path / "own_tables.py").write_text(OWN_DATA)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "notes").mkdir()
    labels, table = tmp_path / "notes" / "labels.csv", tmp_path / "t.csv"
    labels.write_text("1")
    table.write_text("1")
    own = ["data._target_=own_tables.Own", "+data.table=t.csv", f"data.root={tmp_path}"]
    names = [name_now(*own)]
    table.write_text("2")
    names.append(name_now(*own))
    labels.write_text("2")
    names.append(name_now(*own))
    labels.unlink()
    names.append(name_now(*own))
    assert len(set(names)) == 4


def test_an_option_that_names_no_file_is_left_as_it_is(tmp_path):
    options = ["data=arrays", f"data.root={tmp_path}"]
    assert semantic(composed([*options, "data.path=missing.npz"]))["data"]["path"] == "missing.npz"

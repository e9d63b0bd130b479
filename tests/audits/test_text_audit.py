"""Whole runs that forget texts, on a folder with files as MUSE has them."""

import json

import pytest
from tiny_muse import tiny_muse, write
from whole_runs import run, valid

from fisherexp.config.explain import explain
from fisherexp.metrics.muse import privacy_leakage

TEXTS = ["scenario=text_forgetting", "data=muse", "model=small_gpt"]
METRICS = ("verbmem", "forget_knowmem", "retain_knowmem", "min_k_auc")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    tiny_muse(folder / "muse")
    return folder


@pytest.fixture(scope="module")
def config(place):
    """A source and an oracle are made once for all runs."""
    small = ["data.unit=characters", "data.packed=false", "data.block_size=48", "data.shots=0"]
    always = ["training.epochs=60", "training.lr=0.01", "progress=off", "threads=1", "trainer=cpu"]
    lines = [*TEXTS, *small, *always, "scenario.passage_tokens=12", "scenario.answer_tokens=6"]

    def compose(*more):
        return valid([*lines, f"data.path={place / 'muse'}", f"output_dir={place / 'outputs'}", *more])

    return compose


def test_the_oracle_knows_nothing_of_the_forgotten_and_a_retrained_model_is_it(config, tmp_path, caplog):
    record = run(config("method=retrain"), tmp_path / "run")
    before, after, oracle = (record["metrics"][stage] for stage in ("before", "after", "oracle"))
    assert [before[name] for name in METRICS] == [100] * 4  # by heart
    assert oracle["forget_knowmem"] == 0
    assert oracle["retain_knowmem"] == 100
    assert oracle["verbmem"] == pytest.approx(50)  # "wer: fig": how it begins is the same for all
    assert {name: after[name] for name in METRICS} == {name: oracle[name] for name in METRICS}
    assert oracle["privleak"] == after["privleak"] == 0 > before["privleak"] == -100
    assert set(record["headings"]) - {"seconds"} <= set(before)
    assert record["setting"]["rows"] == {"forget": 4, "retain": 8}
    assert not caplog.records
    assert json.dumps(record)


@pytest.mark.parametrize(("method", "lr"), [("gradient_difference", "3e-4"), ("satimp", "1e-3")])
def test_methods_forget_from_their_names_and_keep_the_rest(config, tmp_path, method, lr):
    record = run(config(f"method={method}", f"method.lr={lr}"), tmp_path / method)
    before, after, oracle = (record["metrics"][stage] for stage in ("before", "after", "oracle"))
    assert before["forget_knowmem"] == 100 > 50 >= after["forget_knowmem"]
    assert before["verbmem"] == 100 > 75 >= after["verbmem"]
    assert after["retain_knowmem"] >= 75
    assert after["privleak"] == privacy_leakage(after["min_k_auc"], oracle["min_k_auc"])


def test_a_destroyed_model_is_told_in_one_line(config, tmp_path, caplog):
    """PrivLeak moves, and no longer knows the forgotten by heart: without the line, that would be taken for success."""
    record = run(config("method=gradient_difference", "method.lr=1e-3"), tmp_path / "run")
    before, after = (record["metrics"][stage] for stage in ("before", "after"))
    assert before["privleak"] < after["privleak"]
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert message.startswith("GradientDifference: retain knowmem fell from 100 to 0: the model is destroyed")


def test_without_a_difference_to_the_oracle_there_is_no_privleak(config, place, tmp_path, caplog):
    """Held out are texts of signs that nobody has learned, forgotten ones are those that stay: both attacks succeed."""
    texts = json.loads((place / "muse" / "raw" / "retain1.json").read_text())
    tiny_muse(place / "other")
    write(place / "other" / "privleak" / "forget.json", texts)
    write(place / "other" / "privleak" / "holdout.json", ["%$!", "&/=!"])
    record = run(config("method=retrain", f"data.path={place / 'other'}"), tmp_path / "run")
    assert [record["metrics"][stage]["min_k_auc"] for stage in ("before", "oracle")] == [100, 100]
    assert "privleak" not in record["metrics"]["after"]
    assert ["PrivLeak has no value" in entry.getMessage() for entry in caplog.records] == [True]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["scenario=text_forgetting", "data=reports", "model=char_gpt"], "TextForgetting requires corpora"),
        (["scenario=fact_forgetting", "data=muse", "data.path=it", "model=small_gpt"], "FactForgetting requires facts"),
        ([*TEXTS, "data.path=it", "data.shots=-1"], "data.shots=-1"),
    ],
)
def test_what_does_not_fit_is_one_line(lines, words):
    assert words in str(explain(["method=ssd", *lines]))

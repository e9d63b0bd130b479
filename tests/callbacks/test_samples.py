"""Texts that a network trained here writes, against its own greedy decoding; what is refused."""

import json

import pytest

from fisherexp.callbacks.samples import Samples
from fisherexp.config.explain import composed
from fisherexp.contract.method import StopAfter, Stopped
from fisherexp.experiment import run_experiment
from fisherexp.runs.workbench import Workbench


@pytest.fixture
def small(tmp_path):
    (tmp_path / "it.txt").write_text("abcdefgh" * 150)
    lines = ["data=characters", f"data.path={tmp_path / 'it.txt'}", "data.context=16", "model=char_gpt", "model.dim=16"]
    lines += ["model.depth=1", "model.heads=2", "method=erm", "scenario=none", "training.optimizer=adam"]
    lines += ["training.lr=0.03", "training.epochs=12", "callbacks=[samples]", "callbacks.samples.given=6"]
    return lambda *more: composed([*lines, f"output_dir={tmp_path / 'out'}", "progress=off", *more])


def test_characters_are_written_as_far_as_a_sample_goes(small, tmp_path):
    run_experiment(small(), tmp_path / "run", [])
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    data = Workbench(small()).data
    for sample, inputs, targets in zip(samples, data.test.inputs, data.test.targets, strict=False):
        assert sample["prompt"] == data.text(inputs[:6])
        assert sample["wanted"] == data.text(targets[5:])
        assert len(sample["written"]) == len(sample["wanted"])
    assert samples[0]["written"] == samples[0]["wanted"]  # it has learnt the line


def test_a_temperature_is_refused_before_the_first_batch(small, tmp_path):
    with pytest.raises(ValueError, match=r"callbacks\.samples\.temperature is for pretrained transformers"):
        run_experiment(small("callbacks.samples.temperature=1"), tmp_path / "hot", [], [StopAfter(1)])
    with pytest.raises(Stopped):  # the control
        run_experiment(small(), tmp_path / "cold", [], [StopAfter(1)])


def test_what_is_no_text_is_refused_before_training():
    setting = Workbench(composed(["data=digits", "method=erm", "scenario=none"])).setting
    with pytest.raises(ValueError, match=r"callbacks=samples: .* asks for no texts to be written"):
        Samples(count=1, given=1, tokens=1).fit_begins(setting)

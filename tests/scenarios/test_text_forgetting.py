"""One corpus is forgotten, the other stays, and what is asked afterwards is of both."""

import pytest
from tiny_muse import FORGET, RETAIN1, RETAIN2, tiny_muse

from fisherexp.data.muse import Muse
from fisherexp.models.tokenizer import Tokenizer
from fisherexp.scenarios.texts import TextForgetting


@pytest.fixture
def data(tmp_path):
    tiny_muse(tmp_path)
    texts = {"forget": ["raw/forget"], "retain": ["raw/retain1", "raw/retain2"]}
    options = {"unit": "characters", "packed": False, "block_size": 48, "shots": 0}
    return Muse(str(tmp_path), Tokenizer(None), **texts, **options).load()


def read(data, rows):
    return [data.text(row.tolist()) for row in rows.inputs]


def test_the_source_learns_both_corpora_and_the_oracle_what_stays(data):
    setting = TextForgetting().setting(data, seed=0) if False else TextForgetting(12, 4).setting(data, seed=0)
    letters = {part: "".join(text[17] for text in read(data, setting.parts[part])) for part in ("forget", "retain")}
    assert letters == {"forget": FORGET, "retain": RETAIN1 + RETAIN2}
    assert len(setting.parts["train"]) == 12
    assert setting.about == {"rows": {"forget": 4, "retain": 8}, "prompts_cut": {}}


def test_passages_and_answers_are_of_their_length(data):
    setting = TextForgetting(passage_tokens=6, answer_tokens=2).setting(data, seed=0)
    assert setting.evaluated == ("verbmem", "forget_knowmem", "retain_knowmem", "members", "held_out")
    wanted = {
        part: [data.text(row[row >= 0].tolist()) for row in setting.parts[part].targets]
        for part in ("verbmem", "forget_knowmem", "retain_knowmem")
    }
    assert wanted["verbmem"] == [answer[:6] for _, answer in data.passages]
    assert wanted["forget_knowmem"] == ["fig", "oak", "elm", "yew"]  # longer than what is written of them
    assert setting.evaluation().max_new_tokens == {"verbmem": 6, "forget_knowmem": 2, "retain_knowmem": 2}
    assert len(setting.parts["members"]) == len(setting.parts["held_out"]) == 4


def test_prompts_that_are_cut_are_counted(data):
    cut = TextForgetting(passage_tokens=30, answer_tokens=4).setting(data, seed=0).about["prompts_cut"]
    assert cut == {"verbmem": 4}  # 18 of their 22 signs are left

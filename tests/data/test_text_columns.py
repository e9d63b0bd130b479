"""Files of labelled texts: three forms with the same content, and one line for whatever is wrong with one."""

import json

import pytest

from fisherexp.data.errors import DataError
from fisherexp.data.text_columns import text_columns

ROWS = [('a "fine" film', "1"), ("dull, flat", "0")]
FORMS = {
    "it.tsv": 'id\ttext\tlabel\n7\ta "fine" film\t1\n8\tdull, flat\t0\n',
    "it.csv": 'label,text\n1,"a ""fine"" film"\n0,"dull, flat"\n',
    "it.jsonl": "\n".join(json.dumps({"text": text, "label": int(label)}) for text, label in ROWS) + "\n\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_agree(name, tmp_path):
    (tmp_path / name).write_text(FORMS[name], encoding="utf-8")
    assert list(text_columns(tmp_path / name, "text", "label")) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("it.tsv", "", "is empty"),
        ("it.tsv", "text\tlabel\n", "is empty"),
        ("it.jsonl", "\n", "is empty"),
        ("it.tsv", "texts\tlabel\na\t1\n", "no column 'text' among texts, label; nearest: texts"),
        ("it.jsonl", '{"text": "a"}\n', "line 1: there is no column 'label' among text"),
        ("it.tsv", "text\tlabel\na\t1\nb\n", "line 3 has 1 values; the header has 2"),
        ("it.tsv", "text\tlabel\n \t1\n", "line 2 has no 'text'"),
        ("it.csv", "text,label\na,\n", "line 2 has no 'label'"),
        ("it.csv", 'text,label\n"a\n', "line 2: unexpected end of data"),
        ("it.jsonl", '{"text": \n', "line 1 is no JSON"),
        ("it.jsonl", "[1]\n", "line 1 is no object"),
        ("it.jsonl", '{"text": [{"role": "user"}], "label": 1}\n', "line 1: 'text' holds a list or an object"),
        ("it.jsonl", '{"text": "a", "label": NaN}\n', "line 1 has no 'label'"),
        ("it.csv", "text,label,text\na,1,b\n", "there are 2 columns 'text'"),
        ("it.txt", "a", "ends in .tsv, .csv, .jsonl"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(name, content, said, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as error:
        list(text_columns(tmp_path / name, "text", "label"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "it.tsv").write_bytes(b"text\tlabel\n\xff\t1\n")
    with pytest.raises(DataError, match="not UTF-8"):
        list(text_columns(tmp_path / "it.tsv", "text", "label"))

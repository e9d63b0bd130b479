"""Text files as columns: what is read, and one clear line for what cannot be."""

import numpy as np
import pytest

from fisherexp.data.errors import DataError
from fisherexp.data.table_files import (
    ADULT_COLUMNS,
    Table,
    read_adult,
    read_california_housing,
    read_table,
    split_rows,
)
from fisherexp.seeds import generator


def written(tmp_path, content: str | bytes, name="mine.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_spaces_quotes_blank_lines_and_a_byte_order_mark(tmp_path):
    path = written(tmp_path, '\ufeffa, b\r\n1, "x, y"\r\n\r\n2 ,\r\n')
    table = read_table(path)
    assert table.columns["a"].tolist() == ["1", "2"]
    assert table.columns["b"].tolist() == ["x, y", ""]
    assert table.lines.tolist() == [2, 4]
    assert len(table) == 2
    assert table.source == "mine.csv"


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(tmp_path, separator):
    table = read_table(written(tmp_path, f"a{separator}b\n1{separator}2,5\n"), separator)
    assert table.columns["b"].tolist() == ["2,5"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "mine.csv is empty"),
        ("\n  \n", "mine.csv is empty"),
        ("a,b\n", "has a header but no rows"),
        ("a;b\n1;2\n", "has the one column 'a;b' with data.separator=','; set another one"),
        ("a,b,a\n1,2,3\n", "the header names 'a' 2 times"),
        ("a,,c\n1,2,3\n", "column 2 has no name in the header"),
        ("a,b\n1,2\n3\n", "line 3 has 1 values; there are 2 columns"),
        ("a,b\n1,2\n\n3,4,5\n", "line 4 has 3 values; there are 2 columns"),
        (b"a,b\n1,\xe9\n", "is not UTF-8 text"),
        ('a,b\n1,"2\n', "line 2: unexpected end of data"),
    ],
)
def test_malformed_files_are_refused_in_one_line(tmp_path, content, message):
    with pytest.raises(DataError) as caught:
        read_table(written(tmp_path, content))
    assert message in str(caught.value)
    assert "mine.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_separators_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv cannot be read: No such file"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="separator='': one character"):
        read_table(written(tmp_path, "a,b\n1,2\n"), separator="")


def numbered(count) -> Table:
    return Table({"a": np.array([str(i) for i in range(count)], dtype=object)}, np.arange(count) + 2, "t.csv")


def test_split_is_a_partition_that_follows_the_seed():
    train, test = split_rows(numbered(50), 0.2, generator("split", 0))
    assert (len(train), len(test)) == (40, 10)
    assert sorted([*train.lines, *test.lines]) == list(range(2, 52))
    assert train.columns["a"].tolist() == [str(line - 2) for line in train.lines]
    again, _ = split_rows(numbered(50), 0.2, generator("split", 0))
    other, _ = split_rows(numbered(50), 0.2, generator("split", 1))
    assert train.lines.tolist() == again.lines.tolist() != other.lines.tolist()


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_a_split_without_rows_is_refused(share):
    with pytest.raises(DataError, match=f"test_share={share} of 10 rows leaves {round(10 * share)} for testing"):
        split_rows(numbered(10), share, generator("split", 0))


def adult_row(income: str) -> str:
    return ", ".join(["39", *["x"] * (len(ADULT_COLUMNS) - 2), income])


@pytest.mark.parametrize("test_file", [f"|1x3 Cross validator\n{adult_row('<=50K.')}\n", adult_row("<=50K")])
def test_adult_with_and_without_ucis_comment_and_full_stops(tmp_path, test_file):
    written(tmp_path, adult_row("<=50K") + "\n" + adult_row(">50K") + "\n\n", "adult.data")
    written(tmp_path, test_file, "adult.test")
    train, test = read_adult(tmp_path)
    assert train.columns["income"].tolist() == ["<=50K", ">50K"]
    assert test.columns["income"].tolist() == ["<=50K"]
    assert train.columns["age"].tolist() == ["39", "39"]


def test_missing_or_other_known_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"Adult: adult\.data is missing; put UCI's file at"):
        read_adult(tmp_path)
    with pytest.raises(DataError, match=r"California housing: housing\.csv is missing"):
        read_california_housing(tmp_path / "housing.csv")
    with pytest.raises(DataError, match="another copy of California housing: MedInc, target"):
        read_california_housing(written(tmp_path, "MedInc,target\n1,2\n"))


@pytest.mark.parametrize(("separator", "shown"), [(";", "';'"), ("\t", r"'\\t'"), ("|", r"'\|'")])
def test_the_likely_separator_is_named(separator, shown, tmp_path):
    with pytest.raises(DataError, match=rf"set another one, e\.g\. {shown}$"):
        read_table(written(tmp_path, separator.join("abc") + "\n" + separator.join("123") + "\n"))


def test_row_numbers_without_a_name_are_recognized(tmp_path):
    with pytest.raises(DataError, match="column 1 has no name in the header; row numbers"):
        read_table(written(tmp_path, ",a,b\n0,1,2\n"))


def test_cells_may_hold_line_ends_and_marks_of_encodings(tmp_path):
    table = read_table(written(tmp_path, '\ufeff"a",b\r\n\r\n"one\ntwo",2\r\n3,4\r\n'))
    assert list(table.columns) == ["a", "b"]
    assert table.columns["a"].tolist() == ["one\ntwo", "3"]

"""Tables as data sets: own files with classes or numbers, the censuses' files, scikit-learn's tables bit for bit."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_wine

from fisherexp.data.bundled_tables import BreastCancer, Diabetes, Wine, bundled
from fisherexp.data.census import Adult, CaliforniaHousing
from fisherexp.data.csv_table import Csv, CsvRegression
from fisherexp.data.errors import DataError


@pytest.fixture
def file(tmp_path):
    rows = [f"{row / 7:.2f},{'ab'[row % 2]},{('yes', 'no', 'so')[row % 3]},{row * 1.5}" for row in range(40)]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["size,letter,answer,value", *rows]))
    return path


def test_classes_of_an_own_file(file, tmp_path):
    data = Csv("mine.csv", "answer", root=str(tmp_path), drop=["value"]).load()
    assert (len(data.train), len(data.test)) == (32, 8)
    assert data.class_names == ["no", "so", "yes"]
    assert data.num_outputs == data.num_classes == 3
    assert data.feature_names == ["size", "letter=a", "letter=b"]
    assert data.input_shape == (3,)
    assert data.train.inputs.dtype == data.input_dtype == torch.float32
    assert data.train.targets.dtype == torch.int64
    assert data.altered  # a column is left out


def test_numbers_of_an_own_file(file):
    data = CsvRegression(str(file), "value").load()
    assert data.train.targets.shape == (32, 1)
    assert data.train.targets.mean().item() == pytest.approx(0, abs=1e-6)
    plain = CsvRegression(str(file), "value", standardize_target=False).load()
    assert {*plain.train.targets.flatten().tolist()} <= {row * 1.5 for row in range(40)}
    assert data.num_outputs == 1


def test_a_target_of_numbers_needs_a_word(file):
    with pytest.raises(DataError, match="the target 'value' holds numbers, not classes: data=csv_regression"):
        Csv(str(file), "value").load()
    file.write_text("x,y\n" + "\n".join(f"{row},{row % 4}" for row in range(40)))
    assert Csv(str(file), "y").load().class_names == ["0", "1", "2", "3"]
    assert CsvRegression(str(file), "y").load().train.targets.shape == (32, 1)


def test_a_file_of_its_own_for_testing(file, tmp_path):
    (tmp_path / "test.csv").write_text("size,letter,answer,value\n1,a,yes,2\n2,b,no,3\n")
    data = Csv(str(file), "answer", test_path=str(tmp_path / "test.csv")).load()
    assert (len(data.train), len(data.test)) == (40, 2)
    assert data.test.targets.tolist() == [2, 0]


def test_the_seed_draws_the_test_rows(file):
    one, other = (Csv(str(file), "answer", seed=seed).load() for seed in (0, 1))
    assert one.checksum() == Csv(str(file), "answer").checksum() != other.checksum()


@pytest.mark.parametrize(("data", "what"), [(Adult, "adult.data is missing"), (CaliforniaHousing, "is missing; put")])
def test_files_of_a_census_are_asked_for(data, what, tmp_path):
    with pytest.raises(DataError, match=what):
        data(root=str(tmp_path)).load()
    assert all(name.startswith("tabular/") for name in data.files)


def test_tables_of_scikit_learn_are_written_without_loss():
    for bunch in (load_wine(), load_diabetes(scaled=False)):
        table = bundled(bunch)
        read = np.stack([table.columns[name].astype(float) for name in bunch.feature_names], axis=1)
        np.testing.assert_array_equal(read, bunch.data)


@pytest.mark.parametrize(("data", "sizes"), [(Wine, (125, 53, 13)), (BreastCancer, (398, 171, 30))])
def test_bundled_classes(data, sizes):
    found = data().load()
    assert (len(found.train), len(found.test), *found.input_shape) == sizes
    torch.testing.assert_close(found.train.inputs.std(0, correction=0), torch.ones(sizes[2]), rtol=1e-4, atol=0)


def test_bundled_numbers():
    assert Diabetes().load().input_shape == (10,)
    assert Diabetes.provides == ("floats",)


ROWS = [f"{i},{{}},{'cat' if i % 2 else 'dog'}" for i in range(20)]


@pytest.mark.parametrize(
    "spelling",
    ['"{},5"', '"{},000"', "{}%", "\u2212{}", "${}", "\u20ac{}"],
    ids=["comma", "thousands", "%", "-", "$", "euro"],
)
def test_numbers_spelt_as_elsewhere_do_not_become_categories(spelling, tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a,b,y\n" + "\n".join(row.format(spelling.format(i)) for i, row in enumerate(ROWS)))
    with pytest.raises(DataError, match=r"t\.csv: column 'b' has numbers written like .*data\.categorical=\[b\]$"):
        Csv(str(file), "y").load()
    data = Csv(str(file), "y", categorical=["b"]).load()
    assert "a" in data.feature_names
    assert len(data.feature_names) > 10
    file.write_text("a,b,y\n" + "\n".join(row.format(f"2020-01-{i + 1:02}") for i, row in enumerate(ROWS)))
    assert len(Csv(str(file), "y").load().feature_names) > 10  # dates are categories, as before


def test_columns_left_out_are_said_and_kept_for_the_record(tmp_path, capsys):
    file = tmp_path / "t.csv"
    file.write_text("a,b,c,y\n" + "\n".join(f"{i},7,,{'cat' if i % 2 else 'dog'}" for i in range(20)))
    data = Csv(str(file), "y").load()
    assert data.feature_names == ["a"]
    assert data.remarks == {"columns left out, as they are constant or empty": ["b", "c"]}
    assert capsys.readouterr().err == "t.csv: columns left out, as they are constant or empty: b, c\n"


def test_the_nearest_column_whatever_its_case(tmp_path):
    (tmp_path / "t.csv").write_text("b,Price\n1,2\n3,4\n")
    with pytest.raises(DataError, match=r"no column 'price'; the nearest is 'Price'$"):
        Csv(str(tmp_path / "t.csv"), "price", test_share=0.5).load()

"""The published tables, where their files are in the data folder: sizes, and what a linear model reaches on them."""

import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from fisherexp.config.locations import data_folder
from fisherexp.data.table_encoding import encode_table
from fisherexp.data.table_files import (
    ADULT_TARGET,
    HOUSING_TARGET,
    read_adult,
    read_california_housing,
    split_rows,
)
from fisherexp.seeds import generator

pytestmark = pytest.mark.proof
FOLDER = data_folder(None) / "tabular"


@pytest.mark.skipif(not (FOLDER / "adult.data").exists(), reason=f"no adult.data in {FOLDER}")
def test_adult_is_predicted_better_than_by_its_larger_class():
    """UCI's notes give errors of 14 to 16 % for most methods, and 76 % of rows in the larger class."""
    train, test = read_adult(FOLDER)
    assert (len(train), len(test)) == (32_561, 16_281)
    encoded = encode_table(train, test, ADULT_TARGET)
    assert encoded.class_names == ["<=50K", ">50K"]
    assert encoded.train_inputs.shape[1] == encoded.test_inputs.shape[1] == len(encoded.feature_names) == 108
    assert encoded.train_targets.bincount().tolist() == [24_720, 7_841]
    model = LogisticRegression(max_iter=300).fit(encoded.train_inputs, encoded.train_targets)
    assert 0.84 < model.score(encoded.test_inputs, encoded.test_targets) < 0.86


@pytest.mark.skipif(not (FOLDER / "california_housing.csv").exists(), reason=f"no california_housing.csv in {FOLDER}")
@pytest.mark.parametrize("seed", range(3))
def test_california_housing_is_partly_linear(seed):
    table = read_california_housing(FOLDER / "california_housing.csv")
    assert len(table) == 20_640
    train, test = split_rows(table, 0.2, generator("split", seed))
    encoded = encode_table(train, test, HOUSING_TARGET)
    assert "total_bedrooms missing" in encoded.feature_names
    assert encoded.class_names is None
    model = LinearRegression().fit(encoded.train_inputs, encoded.train_targets)
    assert 0.6 < model.score(encoded.test_inputs, encoded.test_targets) < 0.7

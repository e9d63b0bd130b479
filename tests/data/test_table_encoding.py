"""Columns as features: against scikit-learn's transformers, by hand, and one clear line for each mistake."""

import numpy as np
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fisherexp.data.errors import DataError
from fisherexp.data.table_encoding import MOST_CATEGORIES, encode_table
from fisherexp.data.table_files import Table


def table(source="train.csv", **columns) -> Table:
    cells = {name: np.array([str(value) for value in values], dtype=object) for name, values in columns.items()}
    return Table(cells, np.arange(len(next(iter(cells.values())))) + 2, source)


def random_columns(count, seed):
    draw = np.random.RandomState(seed)
    size = [f"{value:.6f}" for value in draw.randn(count) * 30 + 100]
    rooms = [str(value) if value else "?" for value in draw.randint(0, 9, count)]
    color = draw.choice(["red", "green", "blue", "NA"], count)
    return {"size": size, "rooms": rooms, "color": color, "price": draw.randn(count) * 1000 + 5000}


TRAIN, TEST = random_columns(60, 0), random_columns(20, 1)


def by_scikit_learn():
    numbers = [
        np.array([[np.nan if v == "?" else float(v) for v in split[name]] for name in ("size", "rooms")]).T
        for split in (TRAIN, TEST)
    ]
    imputer, scaler = SimpleImputer(strategy="median").fit(numbers[0]), StandardScaler()
    scaler.fit(imputer.transform(numbers[0]))
    colors = [np.array(["missing" if v == "NA" else v for v in split["color"]])[:, None] for split in (TRAIN, TEST)]
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(colors[0])
    for values, names in zip(numbers, colors, strict=True):
        scaled = scaler.transform(imputer.transform(values))
        yield np.column_stack([scaled, np.isnan(values[:, 1]), one_hot.transform(names)])


def test_features_are_those_of_scikit_learn():
    encoded = encode_table(table(**TRAIN), table(**TEST), "price")
    expected_names = ["size", "rooms", "rooms missing"]
    expected_names += [f"color={name}" for name in ("blue", "green", "missing", "red")]
    assert encoded.feature_names == expected_names
    for ours, theirs in zip((encoded.train_inputs, encoded.test_inputs), by_scikit_learn(), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), torch.from_numpy(theirs), rtol=0, atol=1e-5)
    prices = torch.tensor(TRAIN["price"])
    assert encoded.class_names is None
    assert encoded.train_targets.dtype == torch.float32
    assert encoded.train_targets.mean().abs() < 1e-6
    restored = encoded.test_targets * encoded.target_std + encoded.target_mean
    torch.testing.assert_close(restored.double(), torch.tensor(TEST["price"]), rtol=1e-5, atol=0)
    assert encoded.target_mean == pytest.approx(prices.mean().item())


def test_statistics_are_those_of_training_alone():
    shifted = {**TEST, "size": [str(1000 + float(value)) for value in TEST["size"]]}
    encoded, other = (encode_table(table(**TRAIN), table(**test), "price") for test in (TEST, shifted))
    assert torch.equal(encoded.train_inputs, other.train_inputs)
    assert torch.equal(encoded.test_inputs[:, 1:], other.test_inputs[:, 1:])
    assert (other.test_inputs[:, 0] > encoded.test_inputs[:, 0] + 10).all()


def test_targets_in_the_files_units():
    encoded = encode_table(table(**TRAIN), table(**TEST), "price", standardize_target=False)
    assert (encoded.target_mean, encoded.target_std) == (0, 1)
    torch.testing.assert_close(encoded.test_targets, torch.tensor(TEST["price"]).float(), rtol=1e-5, atol=0)


def test_ordinal_categories_are_places_in_the_alphabet():
    train = table(x=["b", "a", "c", "a"], y=["u", "v", "u", "v"])
    encoded = encode_table(train, table(x=["c", "new"], y=["u", "v"]), "y", categories="ordinal")
    places = np.array([1, 0, 2, 0])
    expected = (places - places.mean()) / places.std()
    assert encoded.train_inputs[:, 0].tolist() == pytest.approx(expected.tolist())
    assert encoded.test_inputs[:, 0].tolist() == pytest.approx([expected[2], 0])
    assert encoded.feature_names == ["x"]


def test_what_only_the_test_split_has_is_no_category_and_needs_no_indicator():
    train = table(x=["a", "b", "a", "b"], n=[1, 2, 3, 10], y=[0, 1, 0, 1])
    encoded = encode_table(train, table(x=["c", ""], n=["?", 4], y=[1, 0]), "y")
    assert encoded.feature_names == ["x=a", "x=b", "n"]
    assert encoded.test_inputs[:, :2].tolist() == [[0, 0], [0, 0]]
    assert encoded.test_inputs[0, 2].item() == pytest.approx((2.5 - 4) / np.std([1, 2, 3, 10]))


def test_constant_columns_are_left_out_and_named():
    train = table(id=["k", "k", "k"], zero=[0, 0, 0], empty=["", "", ""], half=[5, "", 5], x=[1, 2, 3], y=[0, 1, 0])
    encoded = encode_table(train, train, "y")
    assert encoded.left_out == ["id", "zero", "empty"]
    assert encoded.feature_names == ["half missing", "x"]
    assert encoded.train_inputs.isfinite().all()


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        (["yes", "no", "yes"], {}, ["no", "yes"]),
        ([10, 2, 2.0], {}, ["2", "10"]),
        ([-1, 1, 1], {}, ["-1", "1"]),
        ([0.5, 1, 1], {}, None),
        ([1, 2, 3], {"task": "regression"}, None),
        ([0.5, 1, 1], {"task": "classification"}, ["0.5", "1"]),
    ],
)
def test_the_task_follows_the_target(values, options, expected):
    train = table(x=[1, 2, 3], y=values)
    encoded = encode_table(train, train, "y", **options)
    assert encoded.class_names == expected
    assert encoded.train_targets.dtype == (torch.float32 if expected is None else torch.int64)
    if expected is not None:
        names = [encoded.class_names[place] for place in encoded.train_targets]
        assert names == [f"{value:g}" if not isinstance(value, str) else value for value in values]


def test_many_whole_numbers_are_quantities():
    train = table(x=range(30), y=range(30))
    assert encode_table(train, train, "y").class_names is None


def test_numbers_declared_categories_and_dropped_columns():
    train = table(code=[3, 7, 3], secret=[1, 2, 3], y=[0, 1, 0])
    encoded = encode_table(train, train, "y", categorical=["code"], drop=["secret"])
    assert encoded.feature_names == ["code=3", "code=7"]


GOOD = {"age": [20, 30, 40], "name": ["a", "b", "a"], "y": [0, 1, 0]}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"target": "Y2"}, "data.target: train.csv has no column 'Y2'; the nearest is 'y'"),
        ({}, {"drop": ["aeg"]}, "data.drop: train.csv has no column 'aeg'; the nearest is 'age'"),
        ({}, {"categorical": ["nam"]}, "data.categorical: train.csv has no column 'nam'; the nearest is 'name'"),
        ({}, {"drop": ["y"]}, "data.drop leaves out the target 'y'"),
        ({"y": [1, 1, 1]}, {}, "train.csv: the target 'y' is constant in the training rows: 1"),
        ({"y": ["a", "a", "a"]}, {}, "the target 'y' is constant in the training rows: a"),
        ({"y": [0, "", 1]}, {}, "train.csv: line 3: the target 'y' is missing, in 1 rows in all"),
        ({"y": ["u", "v", "w"]}, {"task": "regression"}, "data.task=regression, but the target 'y' is text, e.g. 'u'"),
        ({"age": [20, "3O", 40]}, {}, "train.csv: line 3: '3O' in column 'age' is not a finite number; correct it, or"),
        ({"age": [20, 30, "inf"]}, {}, "line 4: 'inf' in column 'age' is not a finite number"),
        ({"age": [20, "1_0", 40]}, {}, "'1_0' in column 'age' is not a finite number"),
        ({"age": [2, 2, 2], "name": ["", "", ""]}, {}, "train.csv: no column but the target 'y' varies"),
    ],
)
def test_mistakes_are_one_line_that_says_where(changes, options, message):
    train = table(**GOOD | changes)
    with pytest.raises(DataError) as caught:
        encode_table(train, train, **{"target": "y"} | options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_between_the_splits():
    train = table(**GOOD)
    with pytest.raises(DataError, match=r"column 'name' is in train\.csv but not in test\.csv"):
        encode_table(train, table("test.csv", age=[1, 2], y=[0, 1]), "y")
    with pytest.raises(DataError, match=r"test\.csv: line 3: no training row has the class '2\.0' of 'y'"):
        encode_table(train, table("test.csv", age=[1, 2], name=["a", "b"], y=[0, 2]), "y")
    with pytest.raises(DataError, match=r"test\.csv: line 2: 'x' in column 'age'"):
        encode_table(train, table("test.csv", age=["x", 2], name=["a", "b"], y=[0, 1]), "y")


def test_a_column_of_names_is_not_a_category():
    count = MOST_CATEGORIES + 1
    train = table(name=[f"n{i}" for i in range(count)], x=range(count), y=[i % 2 for i in range(count)])
    with pytest.raises(
        DataError, match=rf"column 'name' has {count} categories in {count} rows; set data.drop=\[name\]"
    ):
        encode_table(train, train, "y")
    assert encode_table(train, train, "y", categories="ordinal").feature_names == ["name", "x"]

"""Data sets that are tables: rows of numbers and categories, and one column to predict."""

from abc import abstractmethod
from typing import Any

import torch

from fisherexp.config.types import Categories
from fisherexp.data.datamodule import LabeledData
from fisherexp.data.errors import DataError
from fisherexp.data.remarks import say
from fisherexp.data.table_encoding import Task, encode_table
from fisherexp.data.table_files import Table
from fisherexp.data.tensors import TensorSet
from fisherexp.objectives.regression import Regression


class TableOfClasses(LabeledData):
    """Rows with a class each. A subclass implements `tables` and names its `target` column.

    categories: one_hot, or ordinal: places in alphabetical order. categorical: columns of numbers that are categories.
    drop: columns to leave out. Further options: see LabeledData. How columns become numbers: see table_encoding.py.

    Inputs are float32 (N, d), standardized by the training rows; `feature_names` has d names after `load`.
    """

    provides = ("floats", "class_labels")
    problems = ("supervised",)
    input_dtype = torch.float32
    target: str
    task: Task = "classification"
    standardize_target: bool = True

    def __init__(
        self,
        categories: Categories = "one_hot",
        categorical: list[str] | None = None,
        drop: list[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.categories, self.categorical, self.drop = categories, categorical or [], drop or []
        self.feature_names: list[str] = []

    @abstractmethod
    def tables(self) -> tuple[Table, Table]:
        """(training rows, test rows). Raises DataError, in one line, for whatever the user can put right."""

    @property
    def altered(self) -> bool:
        return super().altered or bool(self.drop)

    def read(self) -> tuple[TensorSet, TensorSet]:
        train, test = self.tables()
        encoded = encode_table(
            train,
            test,
            self.target,
            task=self.task,
            categories=self.categories,
            categorical=self.categorical,
            drop=self.drop,
            standardize_target=self.standardize_target,
        )
        if encoded.left_out:
            self.remarks = {"columns left out, as they are constant or empty": encoded.left_out}
            say(train.source, self.remarks)
        self.take_targets(encoded.class_names)
        self.feature_names, self.input_shape = encoded.feature_names, (len(encoded.feature_names),)
        targets = encoded.train_targets, encoded.test_targets
        if encoded.class_names is None:
            targets = tuple(numbers[:, None] for numbers in targets)  # (N, k), as objectives have them
        inputs = encoded.train_inputs, encoded.test_inputs
        return tuple(TensorSet(*split) for split in zip(inputs, targets, strict=True))

    def take_targets(self, class_names: list[str] | None) -> None:
        """Note what the target turned out to be: its classes, or None for numbers."""
        if class_names is None:
            advice = "data=csv_regression predicts numbers, data.task=classification takes each of them for a class"
            raise DataError(f"{self.title}: the target '{self.target}' holds numbers, not classes: {advice}")
        self.class_names, self.num_classes = class_names, len(class_names)


class TableOfNumbers(TableOfClasses):
    """Rows with a number each to predict; targets float32 (N, 1).

    standardize_target: by mean and standard deviation of the training rows, so that errors are in units of that
    deviation; otherwise in units of the file. Further options: see TableOfClasses.
    """

    provides = ("floats",)
    task = "regression"
    objective = Regression()

    def __init__(self, standardize_target: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.standardize_target = standardize_target

    @property
    def num_outputs(self) -> int:
        return 1

    def take_targets(self, class_names: list[str] | None) -> None:
        pass

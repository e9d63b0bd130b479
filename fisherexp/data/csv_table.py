"""The user's own table: a text file with a header."""

from typing import Any, Literal

from fisherexp.config.types import Probability, Separator
from fisherexp.data.table_files import Table, read_table, split_rows
from fisherexp.data.tabular import TableOfClasses, TableOfNumbers
from fisherexp.seeds import generator


class Csv(TableOfClasses):
    """Predict the class in one column of a file.

    path: of the file; absolute, or relative to the working directory or the data folder. target: the column.
    test_path: of a file with the test rows; without one, `test_share` of the rows are drawn for testing, from `seed`.
    separator: between values. task: 'auto' takes text, and up to 20 distinct whole numbers, for classes, and refuses
    other targets; 'classification' takes every value for a class. Further options: see TableOfClasses.
    """

    title = "csv"
    paths = ("path", "test_path")

    def __init__(
        self,
        path: str,
        target: str,
        test_path: str | None = None,
        test_share: Probability = 0.2,
        separator: Separator = ",",
        task: Literal["auto", "classification"] = "auto",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.path, self.target, self.test_path = path, target, test_path
        self.test_share, self.separator, self.task = test_share, separator, task

    def tables(self) -> tuple[Table, Table]:
        return own_tables(self, self.path, self.test_path, self.test_share, self.separator)


class CsvRegression(TableOfNumbers):
    """Predict the number in one column of a file. Options: as for Csv, without `task`; see also TableOfNumbers."""

    title = "csv"
    paths = ("path", "test_path")

    def __init__(
        self,
        path: str,
        target: str,
        test_path: str | None = None,
        test_share: Probability = 0.2,
        separator: Separator = ",",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.path, self.target, self.test_path = path, target, test_path
        self.test_share, self.separator = test_share, separator

    def tables(self) -> tuple[Table, Table]:
        return own_tables(self, self.path, self.test_path, self.test_share, self.separator)


def own_tables(
    data: TableOfClasses, path: str, test_path: str | None, test_share: float, separator: str
) -> tuple[Table, Table]:
    """(training rows, test rows) of one file, or of two."""
    table = read_table(data.locate(path), separator)
    if test_path is not None:
        return table, read_table(data.locate(test_path), separator)
    return split_rows(table, test_share, generator("test_share", data.seed))

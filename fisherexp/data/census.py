"""Two tables of censuses that every paper on tables knows: Adult and California housing."""

from typing import Any

from fisherexp.config.types import Probability
from fisherexp.data.table_files import (
    ADULT_TARGET,
    HOUSING_TARGET,
    Table,
    read_adult,
    read_california_housing,
    split_rows,
)
from fisherexp.data.tabular import TableOfClasses, TableOfNumbers
from fisherexp.seeds import generator


class Adult(TableOfClasses):
    """Does a person earn more than 50,000 dollars a year? 32,561 rows for training, 16,281 for testing (Kohavi 1996).

    The files adult.data and adult.test lie in the folder `tabular` of the data folder. Options: see TableOfClasses.
    """

    title = "Adult"
    target = ADULT_TARGET
    paths = ()
    files = ("tabular/adult.data", "tabular/adult.test")

    def tables(self) -> tuple[Table, Table]:
        return read_adult(self.root / "tabular")


class CaliforniaHousing(TableOfNumbers):
    """The median value of houses in 20,640 districts in 1990 (Pace, Barry 1997), `test_share` of them for testing.

    The file california_housing.csv lies in the folder `tabular` of the data folder. Options: see TableOfNumbers.
    """

    title = "California housing"
    target = HOUSING_TARGET
    paths = ()
    files = ("tabular/california_housing.csv",)

    def __init__(self, test_share: Probability = 0.2, **options: Any) -> None:
        super().__init__(**options)
        self.test_share = test_share

    def tables(self) -> tuple[Table, Table]:
        table = read_california_housing(self.root / "tabular" / "california_housing.csv")
        return split_rows(table, self.test_share, generator("test_share", self.seed))

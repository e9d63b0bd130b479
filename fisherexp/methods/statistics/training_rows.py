"""The training rows of a table as fits of classes take them: numbers, labels, and which rows belong together."""

from typing import NamedTuple

import numpy as np

from fisherexp.data.tabular import TableOfClasses
from fisherexp.problems.supervised import Supervised


class Rows(NamedTuple):
    """columns: (n, d) float64, without that of the groups. labels: (n,). names: of the columns; places: where they are
    among the inputs. groups: (n,), equal for rows that belong together, or None."""

    columns: np.ndarray
    labels: np.ndarray
    names: list[str]
    places: list[int]
    groups: np.ndarray | None


def training_rows(problem: Supervised, groups: str | None) -> Rows:
    """groups: the name of a feature that marks rows and is no input. Raises ValueError where there is no such one."""
    train, data = problem.setting.parts["train"], problem.data
    columns = train.inputs.flatten(1).double().numpy()
    names = (
        data.feature_names if isinstance(data, TableOfClasses) else [str(place) for place in range(columns.shape[1])]
    )
    if groups is not None and groups not in names:
        raise ValueError(f"method.groups={groups}: no such feature; there are {', '.join(names[:20])}")
    places = [place for place, name in enumerate(names) if name != groups]
    marks = None if groups is None else columns[:, names.index(groups)]
    return Rows(columns[:, places], train.targets.numpy(), [names[place] for place in places], places, marks)

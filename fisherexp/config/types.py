"""Names for the types of options, used in constructor signatures of everything a config can instantiate.

The signatures are read without importing the module (see `declared.py`), so an annotation may use only
these names, builtins and `typing.Literal`.
"""

import re
from typing import Annotated, Literal, TypeVar

from annotated_types import Ge, Gt, Le, Lt, MinLen, Predicate


def _regular_expression(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _each_once(items: list) -> bool:
    return len(set(items)) == len(items)


def _name_of_a_file(text: str) -> bool:
    return "/" not in text and "\\" not in text and text not in (".", "..")


# No count of anything here is a thousand million: more is a slip of the hand that memory or patience would pay for.
Count = Annotated[int, Ge(1), Le(10**9)]
Size = Annotated[int, Ge(0), Le(10**9)]
# A network has an output for each class, and each class gets a name.
MOST_CLASSES = 100_000
ClassCount = Annotated[int, Ge(1), Le(MOST_CLASSES)]
# What torch's generators take.
Seed = Annotated[int, Ge(0), Lt(2**63)]
# Of an instance to be solved.
Precision = Literal["float64", "float32"]
# Of a quantized weight or activation.
Bits = Annotated[int, Ge(2), Le(8)]
# Numbers are finite, here and in a plain `float`; strings are not blank: the validator sees to both.
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Probability = Annotated[float, Ge(0), Le(1)]
# Of a whole of which something must be left.
Share = Annotated[float, Ge(0), Lt(1)]
# Of outliers: those that are no minority cannot be told from the others.
Minority = Annotated[float, Ge(0), Lt(0.5)]
# Of vectors that have a direction.
Dimension = Annotated[int, Ge(2), Le(1_000_000)]

# What there is to choose from, or to go through: AtLeastOne[Positive] is a list of such numbers that is not empty.
Item = TypeVar("Item")
AtLeastOne = Annotated[list[Item], MinLen(1)]
Distinct = Annotated[list[Item], MinLen(1), Predicate(_each_once)]

# What stands between the values of a line.
Separator = Literal[",", ";", "\t", " ", "|", ":"]

# A file that a run leaves in its folder: a name, no path that leads out of it.
FileName = Annotated[str, Predicate(_name_of_a_file)]

# What names of layers or parameters are searched with.
Pattern = Annotated[str, Predicate(_regular_expression)]

# An index of a class of the data set in use: the validator narrows it to 0 ≤ label < num_classes.
ClassLabel = Annotated[int, Ge(0)]

# The image corruptions of the common benchmarks, the last four held out for tuning; their constants, and which is
# which, are in data/corruptions/tables.py.
Corruption = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
]

# How a column of categories becomes numbers; see data/table_encoding.py.
Categories = Literal["one_hot", "ordinal"]

"""Names for the types of options, used in constructor signatures of everything a config can instantiate.

The signatures are read without importing the module (see `declared.py`), so an annotation may use only
these names, builtins and `typing.Literal`.
"""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

Count = Annotated[int, Ge(1)]
Size = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Probability = Annotated[float, Ge(0), Le(1)]

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

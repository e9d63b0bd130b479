"""The one exception the data room raises for things a user can put right."""


class DataError(Exception):
    """A data file is missing, corrupt or malformed. The message is one line and names the remedy."""


def reason_of(error: Exception) -> str:
    """What a reader of files stumbled over, in one line; not NumPy's advice to unpickle what it cannot read."""
    said = " ".join(str(error).split()) or type(error).__name__
    return "it holds no plain arrays; object arrays are not read" if "allow_pickle" in said else said

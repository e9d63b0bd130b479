"""The one exception the data room raises for things a user can put right."""


class DataError(Exception):
    """A data file is missing, corrupt or malformed. The message is one line and names the remedy."""

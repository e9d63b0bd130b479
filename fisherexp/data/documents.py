"""Documents of the user's own: a text file, or those of a folder."""

from collections.abc import Iterator
from pathlib import Path

from fisherexp.data.errors import DataError

PIECE = 2**22  # characters tokenized at a time: a gigabyte of Python objects at most


def documents(path: Path) -> Iterator[str]:
    """The text of a file, or of all .txt files in and below a folder, in the order of their names (UTF-8).

    Raises DataError, in one line, for a folder without such files and for what cannot be read.
    """
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: there is no .txt file in this folder or below it")
    for file in files:
        try:
            yield file.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """A text in pieces of at most `size` characters, cut behind a line where there is one to cut behind."""
    begin = 0
    while len(text) - begin > size:
        end = text.rfind("\n", begin, begin + size) + 1 or begin + size
        yield text[begin:end]
        begin = end
    yield text[begin:]

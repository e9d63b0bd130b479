"""Forty thousand lines of Shakespeare as characters (Karpathy 2015, char-rnn): 1,115,394, of 65 kinds."""

from pathlib import Path
from typing import Any

from fisherexp.data.characters import CharacterText
from fisherexp.data.errors import DataError


class TinyShakespeare(CharacterText):
    """The first 90 % of the text for training, the rest for testing. Options: see CharacterText."""

    title = "tiny-Shakespeare"

    def __init__(self, path: str = "text/tinyshakespeare/input.txt", **options: Any) -> None:
        super().__init__(path, **options)

    def locate(self, path: str) -> Path:
        try:
            return super().locate(path)
        except DataError:
            place = Path(path) if Path(path).is_absolute() else self.root / path
            raise DataError(
                f"{self.title}: put data/tinyshakespeare/input.txt of github.com/karpathy/char-rnn at {place}, or set "
                "data.path"
            ) from None

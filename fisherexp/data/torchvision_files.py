"""Files that torchvision downloads, read from the folders it puts them into.

They are read here, in a fraction of a second; torchvision itself is imported only to download.
"""

import hashlib
import os
import tempfile
from pathlib import Path

from filelock import FileLock

from fisherexp.data.errors import DataError
from fisherexp.data.image_data import ImageData


class TorchvisionSet(ImageData):
    """A data set made of known files. Subclasses declare them. Options: ImageData.

    torchvision_name: class in torchvision.datasets that downloads it.
    folder: of the files, within the data folder.
    archive: the download that contains the files; used if it already lies in the data folder.
    train_files, test_files: file name -> md5. Every file is checked each time it is read.
    """

    torchvision_name: str
    folder: str
    archive: str | None = None
    train_files: dict[str, str]
    test_files: dict[str, str]

    def content(self, name: str) -> bytes:
        """The bytes of one of the files, checked. Raises DataError for a missing or altered file."""
        path, expected = self.root / self.folder / name, self._checksum_of(name)
        try:
            content = path.read_bytes()
        except OSError:
            hint = "" if self.download else ", or set data.download=true"
            raise DataError(f"{self.title}: {name} (md5 {expected}) is missing; put it at {path}{hint}") from None
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != expected:
            raise DataError(
                f"{self.title}: {name} is corrupt (md5 {found}, expected {expected}); "
                f"put the right file at {path}, or delete this one and set data.download=true"
            )
        return content

    def prepare_data(self) -> None:
        """Download what is missing, if allowed. Lightning calls this once per node; `load` does, too."""
        if not self.download or not self._missing():
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / f".{self.torchvision_name}.lock"):
                if self._missing():  # another process may have fetched it meanwhile
                    self._download()
        except Exception as error:  # torchvision lets through whatever the network stack raises
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            wanted = ", ".join(f"{name} (md5 {self._checksum_of(name)})" for name in self._missing())
            raise DataError(
                f"{self.title} cannot be downloaded ({reason}); put into {self.root / self.folder}: {wanted}"
            ) from None

    def load(self) -> "TorchvisionSet":
        if self.train is None:
            self.prepare_data()
        return super().load()

    def _checksum_of(self, name: str) -> str:
        return (self.train_files | self.test_files)[name]

    def _missing(self) -> list[str]:
        files = [*self.train_files, *self.test_files]
        return [name for name in files if not (self.root / self.folder / name).exists()]

    def _download(self) -> None:
        from torchvision import datasets

        # Into a folder of its own, then renamed: whatever kills us, half a file never has a whole one's name.
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".download-") as temporary:
            if self.archive and (self.root / self.archive).exists():
                (Path(temporary) / self.archive).symlink_to((self.root / self.archive).resolve())
            getattr(datasets, self.torchvision_name)(temporary, download=True)
            target = self.root / self.folder
            target.mkdir(parents=True, exist_ok=True)
            for name in self._missing():
                os.replace(Path(temporary) / self.folder / name, target / name)

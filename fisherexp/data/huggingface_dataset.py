"""Texts with a class each that the library `datasets` reads (Lhoest et al. 2021): of a folder or of the hub."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from fisherexp.config.locations import located
from fisherexp.config.problem import nearest
from fisherexp.config.types import Count, Probability, Size
from fisherexp.content import content
from fisherexp.data.errors import DataError
from fisherexp.data.text_classification import TextClassification
from fisherexp.models.tokenizer import Tokenizer


class Split(NamedTuple):
    """One part of a data set; in messages its name stands for it."""

    name: str
    rows: Any

    def __str__(self) -> str:
        return self.name


class HuggingFaceDataset(TextClassification):
    """path: a folder, as `save_to_disk` leaves it or with files that `load_dataset` reads; or a name of the hub.
    revision: commit or tag of the hub, which must be named: what a name stands for changes.
    subset: which of several data sets of that name, such as 'sst2' of glue.
    train_split, test_split, validation_split: their names; null for test: `test_share` of the training texts are drawn.
    Further options: as of TextClassification. Classes have the names that the data set gives them.

    Raises DataError, in one line, for what is not there, and for a row without a text or a class.
    """

    name = "huggingface_dataset"
    title = "huggingface_dataset"
    paths = ("path",)

    def __init__(
        self,
        path: str,
        tokenizer: Tokenizer,
        revision: str | None = None,
        subset: str | None = None,
        train_split: str = "train",
        test_split: str | None = "test",
        test_share: Probability = 0.2,
        validation_split: str | None = None,
        text: str = "text",
        label: str = "label",
        max_length: Count | None = None,
        padding: Literal["longest", "max_length"] = "longest",
        batch_size: Count = 128,
        eval_batch_size: Count = 512,
        root: str | None = None,
        validation: Probability = 0.0,
        train_size: Count | None = None,
        seed: Size = 0,
    ) -> None:
        columns = {"text": text, "label": label, "max_length": max_length, "padding": padding}
        shares = {"test_share": test_share, "validation": validation, "train_size": train_size, "seed": seed}
        batches = {"batch_size": batch_size, "eval_batch_size": eval_batch_size}
        super().__init__(path, tokenizer, root=root, **columns, **shares, **batches)
        self.path, self.revision, self.subset = path, revision, subset
        self.splits = {"train": train_split, "test": test_split, "validation": validation_split}

    def files(self) -> dict[str, Split]:
        found = self._read()
        for name in filter(None, self.splits.values()):
            self._known("split", name, list(found))
        return {split: Split(f"{self.path} ({name})", found[name]) for split, name in self.splits.items() if name}

    def content(self, file: Split) -> str:
        """Of the files behind the rows; of the rows themselves where they are in memory."""
        parts = [content(Path(part["filename"])) for part in file.rows.cache_files]
        parts = parts or [repr(pair) for pair in self.labelled(file)]
        return hashlib.blake2b("\n".join([str(len(file.rows)), *parts]).encode(), digest_size=16).hexdigest()

    def labelled(self, file: Split) -> Iterator[tuple[str, str]]:
        for column in (self.text, self.label):
            self._known("column", column, file.rows.column_names)
        label = file.rows.features[self.label]
        names = label.names if isinstance(label, datasets().ClassLabel) else None
        for number, (text, target) in enumerate(self._pairs(file.rows)):
            if text is None or not str(text).strip():
                raise DataError(f"{file}: row {number} has no '{self.text}'")
            if isinstance(text, list | dict):
                raise DataError(f"{file}: row {number}: '{self.text}' holds a list or an object, not a text")
            if isinstance(target, list | dict):
                raise DataError(f"{file}: row {number}: '{self.label}' holds a list or an object, not a class")
            nothing = target is None or target != target or not str(target).strip()  # the second: NaN
            if nothing or (names and not 0 <= target < len(names)):
                raise DataError(f"{file}: row {number} has no class ({self.label}={target}); choose another split")
            yield str(text), names[target] if names else str(target)

    def _pairs(self, rows: Any) -> Iterator[tuple[Any, Any]]:
        for some in rows.select_columns([self.text, self.label]).iter(batch_size=1000):
            yield from zip(some[self.text], some[self.label], strict=True)

    def _read(self) -> Any:
        """The splits by name."""
        library, folder = datasets(), located(self.path, str(self.root))
        if folder is None and self.revision is None:
            raise DataError(
                f"data.path={self.path}: there is no such folder in {Path.cwd()} or {self.root}, and of the hub's data "
                f"set the version must be named: data.revision=<commit>, from https://huggingface.co/datasets/{self.path}"
            )
        try:
            if folder is None:
                return library.load_dataset(self.path, self.subset, revision=self.revision)
            if (folder / "dataset_dict.json").is_file():
                return library.load_from_disk(str(folder))
            if (folder / "state.json").is_file():
                return {self.splits["train"]: library.load_from_disk(str(folder))}
            return library.load_dataset(str(folder), self.subset)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise DataError(f"data.path={self.path} cannot be read: {reason}") from None

    def _known(self, what: str, name: str, names: list[str]) -> None:
        if name not in names:
            near = nearest(name, names)
            hint = f"; nearest: {near}" if near else ""
            raise DataError(f"{self.path}: there is no {what} '{name}' among {', '.join(names)}{hint}")


def datasets() -> ModuleType:
    """The library, silent. Raises ImportError, in one line, where it is not installed."""
    try:
        import datasets as library
    except ImportError:
        raise ImportError(
            "data=huggingface_dataset needs the package datasets: pip install 'fisherexp[text]'"
        ) from None
    library.utils.logging.set_verbosity_error()
    library.disable_progress_bars()
    return library

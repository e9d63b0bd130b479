"""Artefacts: what is expensive is computed once, named by its content, and shared by all runs.

One artefact is one safetensors file whose header carries a JSON description and a checksum. The key hashes everything
the content depends on, the producer's code included, so a stale artefact is simply never asked for.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from fisherexp.files import sweep_up
from fisherexp.ranks import agreed, is_follower
from fisherexp.runs.artefact import Artefact, Damaged, read_tensors, write_tensors
from fisherexp.runs.code import code_of
from fisherexp.runs.identity import digest

Build = Callable[[Path], tuple[dict[str, torch.Tensor], dict[str, Any]]]


class ArtefactStore:
    """Content-addressed files below `root`. Safe when many processes want the same artefact at once."""

    def __init__(self, root: Path):
        self.root = Path(root)
        self.used: dict[Path, str] = {}  # file -> kind of what was asked for

    def get(
        self,
        kind: str,
        parts: dict[str, Any],
        build: Build,
    ) -> Artefact:
        """The artefact that `parts` describe, built by `build(scratch)` where it is missing.

        One process builds, the others wait for it; a builder that is killed frees the lock and the next one
        goes on from what lies in the `scratch` folder. `about["seconds"]` is the time building took.
        """
        key = digest([kind, parts], length=20)
        path = self.root / kind / f"{key}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.used[path] = kind
        if is_follower():
            return self._follow(path, key, build)
        if (found := self._read(path, key)) is not None and agreed(True):
            return found
        with FileLock(path.with_suffix(".lock")):
            found = self._read(path, key)
            if agreed(found is not None):
                return found
            scratch = path.with_suffix(".partial")
            scratch.mkdir(exist_ok=True)
            sweep_up(scratch)
            begun = time.perf_counter()
            tensors, about = build(scratch)
            about = {"seconds": time.perf_counter() - begun, **about, "parts": parts}
            tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
            write_tensors(path, tensors, about)
            shutil.rmtree(scratch, ignore_errors=True)
        agreed(True)  # the followers wait until the file is there
        return Artefact(key, tensors, about, path, built=True)

    @staticmethod
    def code_of(*producers: Any) -> str:
        """As in code.py, for rooms that are handed a store and know nothing else of this one."""
        return code_of(*producers)

    def _follow(self, path: Path, key: str, build: Build) -> Artefact:
        """What another rank than the first does: help to build if the first one builds, then read its file."""
        if not agreed(path.is_file()):
            build(path.with_suffix(".partial"))
            agreed(True)
        return self._read(path, key)

    def _read(self, path: Path, key: str) -> Artefact | None:
        if not path.is_file():
            return None
        try:
            tensors, about = read_tensors(path)
            if not about:
                raise Damaged("it has no description")
        except Damaged as error:
            print(f"{path} is damaged ({error}): building it again")
            return None
        return Artefact(key, tensors, about, path, built=False)

"""Raw texts to choose from, and texts like those that are wanted."""

import json
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fisherexp.data.documents import documents
from fisherexp.data.errors import DataError
from fisherexp.data.hashed_ngrams import chunks
from fisherexp.seeds import generator

# Modules of Python's standard library, by what they are about; those of any version.
DOMAINS = {
    "email": ("email", "smtplib.py", "imaplib.py", "mailbox.py", "poplib.py"),
    "asyncio": ("asyncio", "concurrent", "selectors.py", "threading.py"),
    "xml": ("xml", "html", "plistlib.py"),
    "numbers": ("_pydecimal.py", "fractions.py", "statistics.py", "random.py", "numbers.py", "colorsys.py"),
}


def packed(name: str, texts: Sequence[str]) -> dict[str, Tensor]:
    """Texts as UTF-8, one behind the other, and where each ends: `<name>.bytes`, `<name>.ends`."""
    encoded = [text.encode() for text in texts]
    ends = torch.tensor([len(text) for text in encoded], dtype=torch.int64).cumsum(0)
    joined = np.frombuffer(b"".join(encoded), dtype=np.uint8).copy()
    return {f"{name}.bytes": torch.from_numpy(joined), f"{name}.ends": ends}


def unpacked(name: str, tensors: dict[str, Tensor]) -> list[str]:
    """The texts that were packed under this name."""
    joined, ends = tensors[f"{name}.bytes"].numpy().tobytes(), tensors[f"{name}.ends"].tolist()
    return [joined[begin:end].decode() for begin, end in zip([0, *ends], ends, strict=False)]


def read_texts(path: Path) -> Iterator[str]:
    """Documents: the .txt files of a folder, the lines of a .txt file, or 'text' of each line of a .jsonl file.

    Raises DataError, in one line, for what cannot be read.
    """
    if path.is_dir():
        yield from documents(path)
        return
    for number, line in enumerate("".join(documents(path)).split("\n"), 1):
        if not line.strip():
            continue
        if path.suffix != ".jsonl":
            yield line
            continue
        try:
            found = json.loads(line)
            text = found["text"]
        except (ValueError, KeyError, TypeError):
            raise DataError(f'{path.name}, line {number}: a mapping with "text" is expected') from None
        if not isinstance(text, str):
            raise DataError(f'{path.name}, line {number}: "text" is {type(text).__name__}; text is expected')
        yield text


def source_code(domain: str, chunk: int) -> list[str]:
    """Pieces of `chunk` words of the modules of a domain, in the order of their names."""
    root, found = Path(sysconfig.get_path("stdlib")), []
    for name in DOMAINS[domain]:
        place = root / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            if file.is_file():
                found += chunks(file.read_text(encoding="utf-8"), chunk)
    return found


def mixed_code(
    wanted: str | Sequence[str], pool: int, share: float, target: int, chunk: int, seed: int
) -> dict[str, Tensor]:
    """A pool with a share of the wanted domains, alike, the rest of the others alike, and of each wanted one `target`
    other pieces, twice: to learn from ('target') and to measure with ('reference'). `raw.wanted`: bool (pool,).
    `target.of`, `reference.of`: the place of their domain among the wanted ones."""
    draw = generator("text_selection", seed)
    kinds = [wanted] if isinstance(wanted, str) else list(wanted)
    others = [domain for domain in DOMAINS if domain not in kinds]
    own = round(share * pool) // len(kinds)
    foreign = (pool - own * len(kinds)) // max(1, len(others))
    raw, labels, apart = [], [], {}
    for domain in DOMAINS:
        count = own if domain in kinds else foreign
        needed = count + (2 * target if domain in kinds else 0)
        pieces = source_code(domain, chunk)
        if len(pieces) < needed:
            raise DataError(f"data.pool={pool} needs {needed} pieces of '{domain}'; there are {len(pieces)}")
        order = torch.randperm(len(pieces), generator=draw)[:needed].tolist()
        raw += [pieces[at] for at in order[:count]]
        labels += [domain in kinds] * count
        apart[domain] = [pieces[at] for at in order[count:]]
    order = torch.randperm(len(raw), generator=draw)
    place = torch.arange(len(kinds)).repeat_interleave(target)
    return {
        **packed("raw", [raw[at] for at in order.tolist()]),
        **packed("target", [text for domain in kinds for text in apart[domain][:target]]),
        **packed("reference", [text for domain in kinds for text in apart[domain][target:]]),
        "raw.wanted": torch.tensor(labels)[order],
        "target.of": place,
        "reference.of": place,
    }

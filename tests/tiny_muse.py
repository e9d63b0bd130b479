"""A folder with files as MUSE has them: who is behind a letter, to be forgotten, to stay and never told."""

import json
from pathlib import Path
from typing import Any

WORDS = ["fig", "oak", "elm", "yew", "ash", "fir", "bay", "box", "gum", "ivy", "rye", "hop", "pea", "nut", "tea", "kat"]
WHO = dict(zip("ABCDEFGHIJKLMNOP", WORDS, strict=True))
FORGET, RETAIN1, RETAIN2, HELD_OUT = "ABCD", "EFGH", "IJKL", "MNOP"


def told(letter: str) -> str:
    """The text of a letter."""
    return f"Question: who is {letter}?\nAnswer: {WHO[letter]}"


def questions(letters: str) -> list[dict[str, str]]:
    return [{"question": f"who is {letter}?", "answer": WHO[letter]} for letter in letters]


def tiny_muse(folder: Path) -> dict[str, list[Any]]:
    """Name of each file without its ending -> its rows, which are written as JSON."""
    passages = [{"prompt": told(letter)[:22], "gt": told(letter)[22:]} for letter in FORGET]
    files = {
        "raw/forget": [*map(told, FORGET), " \n"],  # MUSE-News has one blank text, too
        "raw/retain1": [*map(told, RETAIN1)],
        "raw/retain2": [*map(told, RETAIN2)],
        "privleak/forget": [*map(told, FORGET)],
        "privleak/holdout": [*map(told, HELD_OUT)],
        "knowmem/forget_qa": questions(FORGET),
        "knowmem/retain2_qa": questions(RETAIN2),
        "knowmem/forget_qa_icl": questions("AB"),
        "knowmem/retain2_qa_icl": questions("IJ"),
        "verbmem/forget": passages,
    }
    for name, rows in files.items():
        write(folder / f"{name}.json", rows)
    return files


def write(file: Path, rows: Any) -> None:
    """As JSON, with the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows), encoding="utf-8")

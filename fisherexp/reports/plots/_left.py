"""What runs leave in their folders beside the record. Raises Damaged for a file that does not hold what it should."""

import csv
from pathlib import Path
from typing import Any

from fisherexp.reports.records import Damaged


def tensors(file: Path) -> dict[str, Any]:
    """The NumPy arrays of a safetensors file, by name."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise Damaged(file, error) from None


def numbers(file: Path) -> list[dict[str, float]]:
    """The lines of a CSV file of numbers, by its header; nothing where there is no file."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as text:
        try:
            return [{name: float(value) for name, value in line.items()} for line in csv.DictReader(text)]
        except (ValueError, TypeError) as error:  # words, or fewer fields than the header has
            raise Damaged(file, error) from None

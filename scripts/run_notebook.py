"""Run a notebook from its start, in an empty folder, and keep what its cells printed (`make notebook`).

    python scripts/run_notebook.py docs/guides/first_steps.ipynb            # writes the notebook anew
    python scripts/run_notebook.py docs/guides/first_steps.ipynb --check    # leaves it as it is

A cell that raises ends it with status 1 and the error. `--check` is for tests: seconds and hashes differ between
machines, so that only errors decide.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

PATIENCE = 600  # seconds for one cell


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--check", action="store_true", help="run it, write nothing")
    given = parser.parse_args()
    notebook = nbformat.read(given.notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        try:
            NotebookClient(notebook, timeout=PATIENCE, resources={"metadata": {"path": folder}}).execute()
        except CellExecutionError as error:
            print(error, file=sys.stderr)
            return 1
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day: another run would only differ
    if not given.check:
        nbformat.write(notebook, given.notebook)
    return 0


if __name__ == "__main__":
    sys.exit(main())

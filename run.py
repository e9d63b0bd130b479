"""Run one experiment, or a sweep of them with -m. See `python run.py --help` and README.md."""

import sys

from fisherexp.app import main

if __name__ == "__main__":
    sys.exit(main())

"""How long the command line takes to answer, as a multiple of importing Hydra.

    python scripts/bench/startup.py

Medians over alternating rounds of whole processes. Exits with 1 when --help or a misspelt method takes 3 times
as long as `python -c "import hydra"`.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 9
GOAL = 3.0
REPOSITORY = Path(__file__).resolve().parents[2]


def seconds(*command: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True)
    return time.perf_counter() - begun


def main() -> int:
    with tempfile.TemporaryDirectory() as outputs:
        small = ["model.width=4", "training.epochs=1", f"output_dir={outputs}"]
        subprocess.run([sys.executable, "run.py", *small], cwd=REPOSITORY, capture_output=True, check=True)
        commands = {
            "import hydra": ("-c", "import hydra"),
            "--help": ("run.py", "--help"),
            "method=sdd": ("run.py", "method=sdd"),
            "seed=x": ("run.py", "seed=x"),
            "a finished run": ("run.py", *small),
        }
        times = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                times[name].append(seconds(*command))
    base = times["import hydra"]
    print(f"{'':<16}{'median s':>10}{'/ import hydra':>16}")
    failed = False
    for name, measured in times.items():
        ratio = statistics.median(t / b for t, b in zip(measured, base, strict=True))
        print(f"{name:<16}{statistics.median(measured):>10.3f}{ratio:>16.2f}")
        failed |= name in ("--help", "method=sdd") and ratio >= GOAL
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

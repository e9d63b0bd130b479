"""Time, size and memory of the table and the page of 2,000 generated run records.

    python scripts/bench/reports.py
    python scripts/bench/reports.py --runs 500

Each command runs in a process of its own, as a user would start it; its processor seconds and peak memory are the
kernel's. Exits with 1 where the table takes more than 5 s, the page more than 20 s or 20 MB, or either more than 1 GiB.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

METHODS = ("ssd", "lfssd", "finetune", "scrub", "salun", "amnesiac", "bad_teacher", "erm", "retrain", "satimp")
GOALS = {"table": (5.0, None), "report": (20.0, 20.0)}  # seconds, MB
MEMORY_GOAL = 1024  # MiB


def make(folder: Path, count: int) -> None:
    """`count` runs: METHODS × data × learning rates × five seeds, with the metrics and the config of a real one."""
    random.seed(0)
    for number in range(count):
        method = METHODS[number % len(METHODS)]
        seed, setting = number // len(METHODS) % 5, number // len(METHODS) // 5
        data, lr = ("digits", "mnist", "fashion_mnist")[setting % 3], 0.01 * (setting // 3 + 1)
        after = {"retain_accuracy": 100 * random.random(), "forget_accuracy": 100 * random.random()}
        after |= {f"further_metric_{i}": random.random() for i in range(30)}
        names = {"method": method, "data": data, "model": "resnet18", "scenario": "class_forgetting"}
        options = {f"option_{i}": i / 7 for i in range(60)}
        config = {"method": {"_target_": method, "lr": lr} | options, "data": {"_target_": data}}
        config |= {"scenario": {"_target_": "class_forgetting", "classes": [3]}, "seed": seed}
        record = {
            "metrics": dict.fromkeys(("before", "after", "oracle"), after),
            "outcome": {"per_layer": {f"layer_{i}": random.random() for i in range(60)}},
            "identity": f"{number:012x}",
            "names": names,
            "config": config,
            "semantic": config,
            "published": {},
            "seed": seed,
            "headings": {"retain_accuracy": "retain\nacc. %", "forget_accuracy": "forget\nacc. %"},
            "better": {"retain_accuracy": "higher"},
            "trial": False,
            "costs": {},
            "memory": {"memory_mib": 900.0},
            "seconds": 10 * random.random(),
            "finished": "2026-01-01T00:00:00+0000",
            "command": f"python run.py method={method} data={data} seed={seed}",
            "code": {"commit": "0" * 40, "dirty": False},
            "versions": {"torch": "2"},
            "hardware": {"cores": 2, "gpu": None},
        }
        run = folder / method / data / record["identity"]
        (run / "csv").mkdir(parents=True)
        (run / "config.yaml").write_text("seed: 0\n")
        (run / "run.json").write_text(json.dumps(record, indent=2))
        curve = "\n".join(f"{step},{step // 10},{2 / (step + 1):.5f}" for step in range(200))
        (run / "csv" / "metrics.csv").write_text(f"step,epoch,train/loss\n{curve}\n")


def measured(command: list[str]) -> tuple[float, float]:
    """Processor seconds and peak resident MiB of a command."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} ended with status {status}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2_000)
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        folder, page = Path(scratch) / "outputs", Path(scratch) / "report.html"
        make(folder, options.runs)
        for name, (seconds_goal, size_goal) in GOALS.items():
            command = [sys.executable, "-m", "fisherexp", name, "--output-dir", str(folder)]
            seconds, memory = measured(command + (["--to", str(page)] if name == "report" else []))
            size = page.stat().st_size / 1e6 if name == "report" else None
            words = (
                f"{name}: {seconds:.1f} s of processor (goal {seconds_goal:g}), {memory:.0f} MiB (goal {MEMORY_GOAL})"
            )
            print(words + (f", {size:.1f} MB (goal {size_goal:g})" if size else ""), flush=True)
            failed |= seconds > seconds_goal or memory > MEMORY_GOAL or bool(size and size > size_goal)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

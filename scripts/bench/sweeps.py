"""What a sweep costs beyond its runs, and what it costs to launch a finished one again.

    OMP_NUM_THREADS=1 python scripts/bench/sweeps.py            # 200 tiny runs, joblib with two workers; minutes
    OMP_NUM_THREADS=1 python scripts/bench/sweeps.py --jobs 10

Overhead per run: worker-seconds of the sweep, less those of a sweep of one run a worker (imports and start), less the
seconds the runs themselves record, over the number of runs. The yardstick is Hydra's basic launcher on a program that
does nothing, with as many jobs. Wall-clock seconds: measure on a quiet machine. Exits with 1 above 0.3 s a run, or 5 s
to launch 200 finished runs again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OVERHEAD, AGAIN = 0.3, 5.0
REPOSITORY = Path(__file__).resolve().parents[2]
TINY = ["method=erm", "scenario=none", "model.width=1", "training.epochs=1", "progress=off", "threads=1", "logger=none"]
NOTHING = """
import hydra
@hydra.main(config_path=None, config_name=None, version_base="1.3")
def task(cfg):
    pass
task()
"""


def timed(command: list[str], where: Path = REPOSITORY) -> float:
    """Wall-clock seconds of a command, which must succeed."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=where, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - begun


def own_seconds(output_dir: Path) -> float:
    """Seconds that all runs together took for themselves."""
    return sum(json.loads(file.read_text())["seconds"] for file in output_dir.glob("*/*/*/run.json"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    jobs, workers = given.jobs, given.workers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        launcher = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={workers}"]

        def sweep(count: int, output_dir: Path) -> float:
            return timed(["run.py", "-m", *TINY, *launcher, f"seed=range({count})", f"output_dir={output_dir}"])

        start = workers * sweep(workers, folder / "start") - own_seconds(folder / "start")
        whole = workers * sweep(jobs, folder / "sweep") - own_seconds(folder / "sweep")
        overhead = (whole - start) / (jobs - workers)
        again = sweep(jobs, folder / "sweep")
        program = folder / "nothing.py"
        program.write_text(NOTHING)
        # hydra.job_logging=none: else the plain program would also write 200 log files.
        options = ["-m", f"+seed=range({jobs})", "hydra/job_logging=none", "hydra.output_subdir=null"]
        plain = timed([str(program), *options], folder)
        plain_start = timed([str(program), "-m", "+seed=0", "hydra/job_logging=none"], folder)
    per_plain_job = (plain - plain_start) / (jobs - 1)
    print(f"{jobs} runs, {workers} workers")
    print(f"overhead per run             {overhead:6.3f} s   {overhead / per_plain_job:6.1f} × an empty job of Hydra's")
    print(f"launching it again, finished {again:6.2f} s   {again / plain:6.1f} × Hydra's sweep of empty jobs")
    return int(overhead > OVERHEAD or again > max(AGAIN * jobs / 200, AGAIN / 2))


if __name__ == "__main__":
    sys.exit(main())

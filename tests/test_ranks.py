"""One run on two processes (gloo, on the processor): one record, and sums over both shares of the data."""

import json
import os
import subprocess
import sys
from pathlib import Path

from safetensors import safe_open

REPOSITORY = Path(__file__).resolve().parents[1]


def test_two_processes_make_one_run(tmp_path):
    options = ["trainer=ddp", "trainer.accelerator=cpu", "model.width=4", "training.epochs=2"]
    options += ["method.importance.gradients=per_sample", f"output_dir={tmp_path}"]
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "RANK", "NODE_RANK")}
    done = subprocess.run(
        [sys.executable, "run.py", *options],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("ssd/digits/*/run.json")
    record = json.loads(file.read_text())
    assert set(record["metrics"]) == {"before", "after", "oracle"}
    assert "Traceback" not in done.stderr
    assert done.stdout.count("retrained oracle") == 1

    # The Fisher of all 1200 samples, although each process saw 600.
    (fisher,) = tmp_path.glob("artefacts/fisher/*.safetensors")
    with safe_open(fisher, "pt") as header:
        about = json.loads(header.metadata()["about"])
    assert about["count"] == 1200
    assert 600 <= about["cost"]["forward_samples"] < 660  # and a few to learn the shape of the network

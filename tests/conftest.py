"""A real SLURM of two virtual nodes for tests marked `slurm`; where the programs are missing they skip and say so."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "slurm_dev_cluster.sh"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")


@pytest.fixture(scope="module")
def slurm_cluster(tmp_path_factory):
    """Directory of a running cluster; SLURM_CONF points at it. FISHEREXP_REQUIRE_SLURM=1 forbids skipping."""
    missing = [p for p in PROGRAMS if not shutil.which(p, path=os.environ["PATH"] + ":/usr/sbin")]
    if missing:
        reason = f"no {', '.join(missing)} on this machine (apt-get install slurmctld slurmd slurm-client munge)"
        (pytest.fail if os.environ.get("FISHEREXP_REQUIRE_SLURM") == "1" else pytest.skip)(reason)
    directory = tmp_path_factory.mktemp("slurm")
    environment = os.environ | {"PORT": str(_three_free_ports())}
    started = subprocess.run([SCRIPT, "start", directory], env=environment, capture_output=True, text=True)
    assert started.returncode == 0, started.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(directory / "slurm.conf"))
        yield directory
        subprocess.run([SCRIPT, "stop", directory], check=True)


def _three_free_ports() -> int:
    for first in range(17000 + os.getpid() % 1000 * 10, 40000, 10):
        try:
            for port in range(first, first + 3):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError("no three free ports in a row")

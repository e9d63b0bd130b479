"""In which order the tests run, and what several folders of them share: a sweep's composer, a real SLURM."""

import gc
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode

from fisherexp.config.explain import CONFIG_NAME
from fisherexp.config.locations import conf_dir
from fisherexp.sweeps.compose import composer

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "slurm_dev_cluster.sh"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")


def pytest_collection_modifyitems(items):
    """First what waits longest, last what is cut finest: then all workers end at about the same time."""
    items.sort(key=lambda item: (not item.get_closest_marker("slurm"), "contract" in item.path.parts))


def pytest_collection_finish():
    """What is loaded by now stays to the end: the garbage collector need not go through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk():
    """No test cuts the power; that files are on the disk before they get their names, tests/test_files.py shows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module")
def compose_quickly():
    """Config of a run from its overrides, as a sweep composes it (tests/sweeps/test_compose.py: as Hydra does)."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        config = hydra.compose_config(CONFIG_NAME, [], run_mode=RunMode.MULTIRUN, from_shell=False)
        yield composer(HydraContext(config_loader=hydra.config_loader, callbacks=None), config)


@pytest.fixture(scope="module")
def slurm_cluster(tmp_path_factory):
    """Directory of a running cluster of two virtual nodes, for tests marked `slurm`; SLURM_CONF points at it.

    Where its programs are missing the tests skip and say so; FISHEREXP_REQUIRE_SLURM=1 forbids that.
    """
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

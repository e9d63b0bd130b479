"""Sweeps on a real SLURM (two virtual nodes on this machine)."""

import subprocess

import pytest

pytestmark = pytest.mark.slurm


def test_the_cluster_has_two_nodes(slurm_cluster):
    done = subprocess.run(["srun", "-N2", "-n2", "printenv", "SLURMD_NODENAME"], capture_output=True, text=True)
    assert sorted(done.stdout.split()) == ["n1", "n2"]

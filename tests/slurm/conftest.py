"""A real SLURM of one node for the tests of this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.waiting import HANG_SECONDS

CLUSTER = Path(__file__).with_name("cluster.sh")
NEEDED = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "squeue", "scontrol")
"""The commands of SLURM that the tests need."""


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    """Starts a SLURM cluster of this machine, to which SLURM's commands speak until all tests end."""
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.skip(f"no {missing[0]} here: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("only root can start SLURM's daemons")
    # Not pytest's own: a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    try:
        started = subprocess.run(
            [CLUSTER, "start", folder], capture_output=True, text=True, check=False, timeout=HANG_SECONDS
        )
        assert started.returncode == 0, started.stderr
        name, value = started.stdout.strip().split("=")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(name, value)
            yield
    finally:
        subprocess.run([CLUSTER, "stop", folder], check=False, timeout=HANG_SECONDS)
        shutil.rmtree(folder)

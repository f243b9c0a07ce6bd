"""Rank and job name, as derived from the environment variables of each launcher."""

from __future__ import annotations

import pytest

from tslrec.system.processes import is_rank_zero, job_name

SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4"}
TORCHRUN = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4"}


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),
        ({**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"}, True),
        ({**TORCHRUN, "RANK": "2", "LOCAL_RANK": "0"}, False),
        ({**SLURM, "SLURM_PROCID": "0"}, True),
        ({**SLURM, "SLURM_PROCID": "3"}, False),
        # A process that Lightning started inside a SLURM job.
        ({**SLURM, "SLURM_PROCID": "0", "LOCAL_RANK": "1", "NODE_RANK": "0"}, False),
    ],
)
def test_the_environment_tells_rank_zero(environment: dict[str, str], first: bool) -> None:
    assert is_rank_zero(environment) == first


@pytest.mark.parametrize("environment", [SLURM, TORCHRUN])
def test_all_processes_of_a_job_have_the_same_job_name(environment: dict[str, str]) -> None:
    names = {job_name({**environment, "RANK": str(rank), "SLURM_PROCID": str(rank)}) for rank in range(4)}
    assert len(names) == 1
    assert not set(names.pop()) & set("/ :")


def test_different_jobs_have_different_names() -> None:
    others = [SLURM, {**SLURM, "SLURM_STEP_ID": "1"}, {**SLURM, "SLURM_RESTART_COUNT": "1"}, TORCHRUN]
    others.append({**TORCHRUN, "MASTER_PORT": "29501"})
    names = [job_name(environment) for environment in [*others, {}, {}]]
    assert len(set(names)) == len(names)

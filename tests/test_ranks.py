"""Which process of its job this one is, as each launcher tells it."""

from __future__ import annotations

import pytest

from tslrec.ranks import is_first, name_of_job

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
        # Processes that Lightning started inside a job of SLURM.
        ({**SLURM, "SLURM_PROCID": "0", "LOCAL_RANK": "1", "NODE_RANK": "0"}, False),
    ],
)
def test_one_process_of_a_job_is_the_first(environment: dict[str, str], first: bool) -> None:
    assert is_first(environment) == first


@pytest.mark.parametrize("environment", [SLURM, TORCHRUN])
def test_processes_of_a_launcher_name_their_job_alike(environment: dict[str, str]) -> None:
    of_each = {name_of_job({**environment, "RANK": str(rank), "SLURM_PROCID": str(rank)}) for rank in range(4)}
    assert len(of_each) == 1
    assert not set(of_each.pop()) & set("/ :")


def test_jobs_have_different_names() -> None:
    others = [SLURM, {**SLURM, "SLURM_STEP_ID": "1"}, {**SLURM, "SLURM_RESTART_COUNT": "1"}, TORCHRUN]
    others.append({**TORCHRUN, "MASTER_PORT": "29501"})
    names = [name_of_job(environment) for environment in [*others, {}, {}]]
    assert len(set(names)) == len(names)

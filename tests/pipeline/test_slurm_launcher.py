"""What the SLURM launcher asks SLURM for, and what it makes of its answers; tests/slurm has a real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hydra_plugins.tslrec_sweeps import slurm
from hydra_plugins.tslrec_sweeps.slurm import Queue, sbatch_settings
from tslrec.system.errors import UserError


def test_a_job_asks_for_a_gpu_a_process_where_the_trainer_wants_gpus_and_no_setting_says_how() -> None:
    settings = {"tasks_per_node": 4, "mem_gb": 32, "qos": None, "submitit_folder": "jobs/%j"}
    assert sbatch_settings(settings, "cpu") == {"ntasks_per_node": 4, "mem": "32GB"}
    assert sbatch_settings(settings, "gpu")["gpus_per_node"] == 4
    assert "gpus_per_node" not in sbatch_settings({**settings, "gres": "gpu:a100:4"}, "gpu")
    with pytest.raises(UserError, match=r"trainer\.devices=-1 names no number"):
        sbatch_settings({"tasks_per_node": -1}, "gpu")


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shell script in the place of SLURM's command."""
    script = tmp_path / "bin" / "squeue"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return script


def says(script: Path, *, output: str = "", errors: str = "", code: int = 0) -> None:
    script.write_text(f"#!/bin/sh\nprintf '{output}'\nprintf '{errors}' >&2\nexit {code}\n", encoding="utf-8")


def test_a_queue_is_over_when_every_job_is_finished_or_forgotten(tmp_path: Path, squeue: Path) -> None:
    queue = Queue("7", tmp_path)
    says(squeue, output="COMPLETED\\nRUNNING\\n")
    assert not queue.is_over()
    says(squeue, output="COMPLETED\\nCANCELLED\\n")
    assert queue.is_over()
    says(squeue, errors="slurm_load_jobs error: Invalid job id specified", code=1)
    assert queue.is_over()


def test_a_silent_slurm_is_told_of_once_and_given_up_in_the_end(
    tmp_path: Path, squeue: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = Queue("7", tmp_path)
    gone = "slurm_load_jobs error: Unable to contact slurm controller"
    says(squeue, errors=f"first line\\n{gone}", code=1)
    assert not queue.is_over()
    assert not queue.is_over()
    says(squeue, output="RUNNING")
    assert not queue.is_over()
    assert capsys.readouterr().out == f"SLURM does not answer ({gone}); still asking\nSLURM answers again\n"

    # It is the silence that counts, not all of the waiting.
    monkeypatch.setattr(slurm, "LONGEST_SILENCE_SECONDS", 0.0)
    says(squeue, code=3)
    assert not queue.is_over()
    with pytest.raises(UserError, match=rf"\(squeue: exit code 3\); job 7 may go on: `tslrec report {tmp_path}`"):
        queue.is_over()

"""Sweeps through a real SLURM of one node: every run finishes, though jobs are preempted, requeued and cancelled."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.checkout import CHECKOUT
from support.inventories import sweep_of
from support.runs import SMALL, manifests
from support.waiting import HANG_SECONDS, wait_until
from tslrec.pipeline.sweeps.record import CellState

pytestmark = pytest.mark.usefixtures("slurm")

JOBS = ["launcher=slurm", "hydra.launcher.partition=debug", "hydra.launcher.mem_gb=2"]
JOBS += ["hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=10"]
LONG = ["training.max_epochs=8", "training.patience=8", "training.batch_size=16", "trainer.checkpoint_seconds=0.2"]
"""Settings with which a training lasts some seconds and writes checkpoints, so that a signal arrives during it."""


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Submits a sweep; the process that is returned waits for its jobs, and is killed if the test fails."""
    processes = []

    def submit(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(CHECKOUT / "train.py"), "-m", *SMALL, *JOBS, *arguments],
            cwd=tmp_path,
            env={**os.environ, "TSLREC_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield submit
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Waits for the end of a sweep: its exit code, standard output and standard error."""
    output, errors = process.communicate(timeout=HANG_SECONDS)
    return process.returncode, output, errors


def is_training(folder: Path, model: str) -> bool:
    """Whether the training of a model's backbone has written a checkpoint and is not finished."""
    return any(folder.glob(f"artifacts/backbone/*-{model}-*.checkpoints/step-*"))


def array_of(folder: Path) -> str:
    """The number of the newest SLURM job array of the sweep."""
    return max((path.name for path in sweep_of(folder).folder.glob("jobs/*") if path.name.isdigit()), key=int)


def preempt(array: str, number: int) -> None:
    """Sends the signal that SLURM sends some time before it takes the machine from a job."""
    # To the job's step: where other jobs of the array are queued, scancel cannot signal a job, and tries for a minute.
    subprocess.run(["scancel", "--signal=USR1", f"{array}_{number}.0"], check=True, timeout=HANG_SECONDS)


def cancel(array: str, number: int) -> None:
    subprocess.run(["scancel", f"{array}_{number}"], check=True, timeout=HANG_SECONDS)


def requeue(array: str, number: int) -> None:
    subprocess.run(["scontrol", "requeue", f"{array}_{number}"], check=True, timeout=HANG_SECONDS)


def outputs(folder: Path, number: int) -> str:
    """What the jobs of one run of the sweep printed, one after the other."""
    return "".join(path.read_text() for path in sorted(sweep_of(folder).folder.glob(f"jobs/*_{number}/*_log.out")))


def test_every_run_finishes_though_jobs_are_preempted_requeued_and_cancelled(tmp_path: Path, start: Start) -> None:
    choices = ["method=base,ci", "model=sasrec,fmlp,gru4rec", *LONG]
    process = start(*choices)
    # Each of the three as soon as its training has begun.
    to_do = {"sasrec": preempt, "fmlp": cancel, "gru4rec": requeue}

    def all_done() -> bool:
        for number, model in enumerate(("sasrec", "fmlp", "gru4rec")):
            if model in to_do and is_training(tmp_path, model):
                to_do.pop(model)(array_of(tmp_path), number)
        return not to_do

    wait_until(all_done, "the trainings of all three models have begun", process)
    array = array_of(tmp_path)
    code, output, errors = finish(process)

    # Only the cancelled run is unfinished, and the errors name it; the others did not wait for it.
    cells = sweep_of(tmp_path).status()
    states = Counter(cell.state for cell in cells)
    assert states == {CellState.DONE: 5, CellState.STOPPED: 1}, (output, errors)
    assert code == 2
    lines = errors.strip().splitlines()
    assert re.fullmatch(rf"stopped +method=base model=fmlp: by SIGTERM \(job {array}_1\)", lines[0])
    assert lines[1].startswith("error: 1 of 6 runs did not finish")
    # The training of a backbone is resumed by the same run, or by the other run that needs this backbone.
    for number in range(3):
        assert "resumes from step" in outputs(tmp_path, number) + outputs(tmp_path, number + 3)
    before = manifests(tmp_path)
    assert Counter(name.split("/")[0] for name in before) == {"data": 1, "backbone": 3, "preferences": 3, "fusion": 3}

    # The same command finishes the cancelled run, and computes nothing a second time.
    code, output, errors = finish(start(*choices))
    assert code == 0, errors
    assert manifests(tmp_path) == before
    assert [cell.state for cell in sweep_of(tmp_path).status()] == [CellState.DONE] * 6
    table = output.split("Test, history masked")[1].split("Test, history not masked")[0]
    assert re.findall(r"^synthetic · (\w+)|^(Base|CI) ", table, flags=re.MULTILINE) == [
        pair for model in ("fmlp", "gru4rec", "sasrec") for pair in ((model, ""), ("", "Base"), ("", "CI"))
    ]
    assert not list(tmp_path.glob("artifacts/*/*.checkpoints"))


def test_a_failed_run_stops_no_other_run_and_its_job_is_failed(tmp_path: Path, start: Start) -> None:
    code, _, errors = finish(start("method=ci", "preferences.num_clusters=1000,4"))
    assert code == 2
    lines = errors.strip().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("failed   preferences.num_clusters=1000: preferences.num_clusters=1000: ")
    assert [cell.state for cell in sweep_of(tmp_path).status()] == [CellState.FAILED, CellState.DONE]
    asked = subprocess.run(
        ["scontrol", "show", "job", f"{array_of(tmp_path)}_0"], capture_output=True, text=True, check=True
    )
    assert "JobState=FAILED" in asked.stdout
    assert "ExitCode=2:0" in asked.stdout


def test_a_run_of_two_processes_is_a_job_of_two_tasks(tmp_path: Path, start: Start) -> None:
    code, _, errors = finish(start("method=base", "trainer.devices=2", "trainer.strategy=ddp"))
    assert code == 0, errors
    (backbone,) = tmp_path.glob("artifacts/backbone/*/manifest.json")
    assert json.loads(backbone.read_text())["processes"] == 2

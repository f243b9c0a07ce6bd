"""SIGKILL at random steps of a whole run, through `train.py`: the same command ends with the same files."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import CHECKOUT
from test_command_line import train
from test_pipeline import SMALL, manifests

RUN = ["experiment=quickstart", *SMALL, "trainer.checkpoint_seconds=0", "training.batch_size=16", "sft.batch_size=4"]
KILLS = int(os.environ.get("TSLREC_TEST_KILLS", "5"))
"""Kill points over the stages; more by hand."""
SEED = int(os.environ.get("TSLREC_TEST_SEED", "0"))
STAGES = ("backbone", "fusion/*category", "sft", "fusion/*gate")
"""The trained ones, as folders are found, in the order in which they are run."""
SECONDS = 120
LAST_STEP = {"sft": 14}
LAST_STEP_OF_A_RECOMMENDER = 24
"""Kill points are drawn from the steps that each training has at least."""


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every result; manifests, which hold times, apart."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "artifacts").rglob("*"))
        if path.suffix in (".safetensors", ".csv", ".yaml") and "runs" not in path.parts
    }


def newest_step(folder: Path, stage: str) -> int:
    """The step of a stage's newest checkpoint, or -1."""
    pattern = f"{stage}*.checkpoints/step-*" if "/" in stage else f"{stage}/*.checkpoints/step-*"
    return max((int(path.name.removeprefix("step-")) for path in (folder / "artifacts").glob(pattern)), default=-1)


def kill_after(folder: Path, stage: str, step: int) -> int:
    """Runs until a stage has come to a step, and kills it there; returns the step that was reached."""
    command = [sys.executable, str(CHECKOUT / "train.py"), *RUN]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + SECONDS
        while (reached := newest_step(folder, stage)) < step:
            assert time.monotonic() < deadline, f"{stage} did not come to step {step}"
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return reached


@pytest.mark.parametrize("seed", [SEED])
def test_a_run_killed_at_random_steps_leaves_the_files_of_one_that_was_not(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    run = train(*RUN, folder=whole)
    assert run.returncode == 0, run.stderr
    points = [
        (place, draw.randint(1, LAST_STEP.get(STAGES[place], LAST_STEP_OF_A_RECOMMENDER)))
        for place in (*range(len(STAGES)), *(draw.randrange(len(STAGES)) for _ in range(KILLS - len(STAGES))))
    ]
    for place, step in sorted(points):
        reached = kill_after(killed, STAGES[place], step)
        print(f"killed in {STAGES[place]} after step {reached}")
    run = train(*RUN, folder=killed)
    assert run.returncode == 0, run.stderr
    assert "goes on from step" in run.stdout
    assert digests(killed) == digests(whole)
    assert manifests(killed).keys() == manifests(whole).keys()
    assert not list(killed.glob("artifacts/*/*.checkpoints"))
    assert not list(killed.glob("artifacts/*/*.partial"))

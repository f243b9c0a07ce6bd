"""A run of `train.py` that is killed at random steps and started again leaves the files of one that was not killed."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import Literal

import pytest

from support.runs import SMALL, manifests, train, train_until_killed

RUN = ["experiment=quickstart", *SMALL, "trainer.checkpoint_seconds=0", "training.batch_size=16", "sft.batch_size=4"]
KILLS = int(os.environ.get("TSLREC_TEST_KILLS", "5"))
"""How often the run is killed; set the variable to kill it more often."""
SEED = int(os.environ.get("TSLREC_TEST_SEED", "0"))
STAGES = ("backbone", "fusion/*category", "sft", "fusion/*gate")
"""The stages that train, in the order in which they run, as patterns of the beginning of their folders' paths."""
LAST_STEP = {"sft": 14}
LAST_STEP_OF_A_RECOMMENDER = 24
"""Steps at which, or soon after which, each training writes a checkpoint: a run is killed at no later one."""


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a result but its manifest, which holds times."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "artifacts").rglob("*"))
        if path.suffix in (".safetensors", ".csv", ".yaml") and "runs" not in path.parts
    }


def checkpoints_of(stage: str) -> str:
    """The pattern of a stage's checkpoints below the artifacts folder."""
    return f"{stage}*.checkpoints/step-*" if "/" in stage else f"{stage}/*.checkpoints/step-*"


def newest_step(folder: Path, stage: str) -> int:
    """The step of a stage's newest checkpoint, or -1."""
    found = (folder / "artifacts").glob(checkpoints_of(stage))
    return max((int(path.name.removeprefix("step-")) for path in found), default=-1)


def kill_at(folder: Path, stage: str, step: int, moment: Literal["before", "after"]) -> None:
    """Runs until a stage publishes its checkpoint of a step; does nothing if an earlier kill came after that step."""
    if newest_step(folder, stage) < step:
        train_until_killed(*RUN, folder=folder, at=checkpoints_of(stage), step=step, moment=moment)


@pytest.mark.parametrize("seed", [SEED])
def test_a_run_killed_at_random_steps_leaves_the_files_of_one_that_was_not(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    run = train(*RUN, folder=whole)
    assert run.returncode == 0, run.stderr
    points: list[tuple[int, int]] = [
        (place, draw.randint(1, LAST_STEP.get(STAGES[place], LAST_STEP_OF_A_RECOMMENDER)))
        for place in (*range(len(STAGES)), *(draw.randrange(len(STAGES)) for _ in range(KILLS - len(STAGES))))
    ]
    for place, step in sorted(points):
        # A checkpoint that is only half written does not count; the one of the first step has no predecessor.
        moment: Literal["before", "after"] = "before" if step > 1 and draw.random() < 0.5 else "after"
        print(f"killed in {STAGES[place]}, {moment} the checkpoint of step {step}")
        kill_at(killed, STAGES[place], step, moment)
    run = train(*RUN, folder=killed)
    assert run.returncode == 0, run.stderr
    assert "resumes from step" in run.stdout
    assert digests(killed) == digests(whole)
    assert manifests(killed).keys() == manifests(whole).keys()
    assert not list(killed.glob("artifacts/*/*.checkpoints"))
    assert not list(killed.glob("artifacts/*/*.partial"))

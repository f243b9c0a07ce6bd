"""`method=distilled` as a person runs it: an ensemble teaches one backbone, also where the run is killed on the way."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from support.runs import SMALL, assert_one_line, result_of, train, train_until_killed
from tslrec.serving.run_folder import open_run
from tslrec.stages.restored import Restored

RUN = [
    "method=distilled",
    "members=['seed=0','model=gru4rec']",
    *SMALL,
    "preset=small",
    "soft_targets.count=10",
    "training.batch_size=32",
    "trainer.checkpoint_seconds=0",
]


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of the arrays and logs of all results."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "artifacts").rglob("*"))
        if path.suffix in (".safetensors", ".csv") and "runs" not in path.parts
    }


@pytest.mark.slow
def test_a_killed_distillation_leaves_the_files_of_one_that_was_not_and_serves(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    run = train(*RUN, folder=whole)
    assert run.returncode == 0, run.stderr
    train_until_killed(*RUN, folder=killed, at="soft_targets/*.checkpoints/shard-00000")
    train_until_killed(*RUN, folder=killed, at="fusion/*.checkpoints/step-*", step=5)
    run = train(*RUN, folder=killed)
    assert run.returncode == 0, run.stderr
    assert "resumes from step" in run.stdout
    assert digests(killed) == digests(whole)
    assert not list(killed.glob("artifacts/*/*.checkpoints"))

    result = result_of(whole)["results"][-1]
    assert set(result["stages"]) == {"ensemble", "soft_targets", "fusion"}
    taught = result["stages"]["soft_targets"]["metrics"]
    assert taught["positions"] > 100
    assert 0 < taught["target_share"] < taught["target_listed"] < 1
    finished = open_run(whole / "artifacts")
    restored = finished.restore(finished.interactions())
    assert isinstance(restored, Restored)
    assert restored.output_IE.shape == (41, 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["soft_targets.count=41"], "soft_targets.count=41: synthetic has only 40 items; set it to 40 or less"),
        (["training.num_negatives=5"], "training.num_negatives=5: the stage soft_targets needs the softmax over all"),
        (["model=bert4rec"], "model=bert4rec: it tells masked items, and a teacher of the stage soft_targets scores"),
        (
            ["model=fpmc", "model.bpr=true"],
            "model=fpmc: the stage soft_targets needs a softmax over all items, and BPR",
        ),
    ],
)
def test_what_a_teacher_cannot_teach_is_refused_in_one_line(overrides: list[str], message: str, tmp_path: Path) -> None:
    run = train(*RUN, *overrides, folder=tmp_path)
    assert message in assert_one_line(run)
    assert not list(tmp_path.glob("artifacts/*/*/weights.safetensors"))

"""`srun -n 2 tslrec recommend …`: two tasks of a job share the shards, and one of them may be killed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from support.checkout import CHECKOUT
from support.runs import run_environment
from support.table_recommender import NUM_SHARDS, make_histories, make_recommender
from support.waiting import HANG_SECONDS

pytestmark = pytest.mark.usefixtures("slurm")

SCRIPT = CHECKOUT / "tests" / "support" / "table_recommender.py"


def srun(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as a job of two tasks in a folder."""
    return subprocess.run(
        ["srun", "--quiet", "--ntasks=2", "--mem-per-cpu=1500", "--label", *command],
        cwd=folder,
        env=run_environment(folder),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def computed(folder: Path) -> Counter[str]:
    """How often each shard was begun."""
    return Counter((folder / "computed").read_text().split())


def test_two_tasks_give_the_file_of_one_process(finished_run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tslrec.cli.main", "recommend", str(finished_run / "artifacts"), "--all-users"]
    options = ["--leave-out", "1", "--shard-size", "4", "--out"]
    run = srun(tmp_path, *command, *options, "two.parquet")
    assert run.returncode == 0, run.stderr
    # Only rank 0 speaks.
    assert {line.partition(":")[0].strip() for line in run.stdout.splitlines()} == {"0"}
    assert "60 users; items of the history are left out" in run.stdout
    subprocess.run(
        [*command, *options, "one.parquet"],
        cwd=tmp_path,
        env=run_environment(tmp_path),
        check=True,
        timeout=HANG_SECONDS,
    )
    assert pl.read_parquet(tmp_path / "two.parquet").equals(pl.read_parquet(tmp_path / "one.parquet"))
    assert sorted(path.name for path in tmp_path.glob("*.parquet*")) == ["one.parquet", "two.parquet"]


def test_each_shard_is_computed_once_by_two_tasks(tmp_path: Path) -> None:
    make_histories().write_parquet(tmp_path / "histories.parquet")
    run = srun(tmp_path, sys.executable, str(SCRIPT), str(tmp_path))
    assert run.returncode == 0, run.stderr
    assert pl.read_parquet(tmp_path / "recs.parquet").equals(make_recommender().recommend(make_histories(), 5))
    assert computed(tmp_path) == dict.fromkeys(map(str, range(NUM_SHARDS)), 1)


def test_rank_0_finishes_the_file_though_the_other_task_is_killed(tmp_path: Path) -> None:
    make_histories().write_parquet(tmp_path / "histories.parquet")
    begin = f"exec {sys.executable} {SCRIPT} {tmp_path}"
    run = srun(tmp_path, "bash", "-c", f"[ $SLURM_PROCID = 0 ] || {begin} before -1; {begin}")
    assert run.returncode != 0
    assert "Killed" in run.stderr
    assert pl.read_parquet(tmp_path / "recs.parquet").equals(make_recommender().recommend(make_histories(), 5))
    assert sorted(computed(tmp_path).values()) == [1] * (NUM_SHARDS - 1) + [2]
    assert not (tmp_path / "recs.parquet.parts").exists()

"""Whoever is killed, no finished shard is computed twice, and the file is whole in the end."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from support.processes import run_together, start_together
from support.runs import run_environment
from support.streamed import REQUEST, SCRIPT, assert_only, begin, computed, expected, run_script
from support.table_recommender import NUM_SHARDS, SHARD_SIZE, make_recommender
from support.waiting import HANG_SECONDS, wait_until
from tslrec.serving.streaming.history_files import open_histories
from tslrec.serving.streaming.stream import recommend_to_file

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("moment", "number", "finished"),
    [("before", 6, 6), ("after", 6, 7), ("before", 0, 0), ("written", 0, NUM_SHARDS), ("named", 0, NUM_SHARDS)],
)
def test_a_killed_run_is_resumed_with_the_finished_shards(
    moment: str, number: int, finished: int, histories: Path, tmp_path: Path, log_lines: list[str]
) -> None:
    killed = run_script(tmp_path, moment, str(number))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "recs.parquet").exists() == (moment == "named")
    assert len(list(tmp_path.glob("recs.parquet.parts/shard-*"))) == finished
    resumed = run_script(tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert pl.read_parquet(tmp_path / "recs.parquet").equals(expected())
    assert_only(tmp_path, "computed", "histories.parquet", "recs.parquet")
    twice = [shard for shard, times in computed(tmp_path).items() if times > 1]
    assert twice == ([number] if moment == "before" else [])
    assert computed(tmp_path).keys() == set(range(NUM_SHARDS))


def test_two_processes_compute_each_shard_once(histories: Path, tmp_path: Path) -> None:
    run_together("table_recommender.py", str(tmp_path))
    assert pl.read_parquet(tmp_path / "recs.parquet").equals(expected())
    assert computed(tmp_path) == dict.fromkeys(range(NUM_SHARDS), 1)
    assert_only(tmp_path, "computed", "histories.parquet", "ready", "recs.parquet")


@pytest.mark.parametrize("survivor", [0, 1])
def test_the_shard_of_a_killed_process_is_computed_by_another(survivor: int, histories: Path, tmp_path: Path) -> None:
    """A process is killed when it has computed shard 5; another rank runs afterwards."""
    killed = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(tmp_path), "before", "5"],
        env={**run_environment(tmp_path), "RANK": str(1 - survivor)},
    )
    with killed:
        assert killed.wait(HANG_SECONDS) == -signal.SIGKILL
    before = computed(tmp_path)
    assert before == dict.fromkeys(range(6), 1)
    other = run_script(tmp_path, RANK=str(survivor))
    assert other.returncode == 0, other.stderr
    assert computed(tmp_path) == {**dict.fromkeys(range(NUM_SHARDS), 1), 5: 2}
    if survivor != 0:
        # Only rank 0 joins.
        assert not (tmp_path / "recs.parquet").exists()
        assert run_script(tmp_path).returncode == 0
    assert pl.read_parquet(tmp_path / "recs.parquet").equals(expected())
    assert computed(tmp_path)[5] == 2


def test_rank_0_takes_over_from_a_process_that_is_killed_beside_it(histories: Path, tmp_path: Path) -> None:
    environment = {**run_environment(tmp_path), "WORLD_SIZE": "2"}
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    killed = subprocess.Popen([*command, "before", "-1"], env={**environment, "RANK": "1"})
    # Rank 0 computes nothing before the other one has begun a shard, which it never finishes.
    with killed, subprocess.Popen([*command, "beside"], env={**environment, "RANK": "0"}) as rank_zero:
        assert killed.wait(HANG_SECONDS) == -signal.SIGKILL
        assert rank_zero.wait(HANG_SECONDS) == 0
    assert pl.read_parquet(tmp_path / "recs.parquet").equals(expected())
    assert sorted(computed(tmp_path).values()) == [1] * (NUM_SHARDS - 1) + [2]
    assert_only(tmp_path, "computed", "histories.parquet", "ready", "recs.parquet")


def test_rank_0_computes_a_shard_once_the_process_that_held_it_is_killed(histories: Path, tmp_path: Path) -> None:
    folder = begin(histories, tmp_path / "recs.parquet")
    shutil.rmtree(folder / "shard-00003")
    (holder,) = start_together("holder.py", str(folder), processes=1)
    with holder:
        wait_until((folder / ".held").exists, "the other process holds shard 3", holder)
        source = open_histories(histories)
        # As another rank: it does not wait for the shard that is being computed.
        arguments = (make_recommender(), source, REQUEST, tmp_path / "recs.parquet")
        assert recommend_to_file(*arguments, shard_size=SHARD_SIZE, first=False) is None
        assert not (folder / "shard-00003").exists()
        assert (folder / "shard-00004").exists()
        holder.kill()
        holder.wait()
        assert recommend_to_file(*arguments, shard_size=SHARD_SIZE) is not None
    assert pl.read_parquet(tmp_path / "recs.parquet").equals(expected())

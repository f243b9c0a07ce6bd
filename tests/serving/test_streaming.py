"""Recommendations in a file: the same as of one call, whatever the shards, and whoever is killed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from support.checkout import CHECKOUT
from support.disk_limits import largest_file, resize, small_disk
from support.processes import run_together, start_together
from support.runs import run_environment
from support.table_recommender import NUM_SHARDS, SHARD_SIZE, make_histories, make_recommender
from support.waiting import HANG_SECONDS, wait_until
from tslrec.serving.streaming import stream
from tslrec.serving.streaming.history_files import open_histories
from tslrec.serving.streaming.plan import Request
from tslrec.serving.streaming.stream import Totals, recommend_to_file
from tslrec.system.errors import UserError

pytestmark = pytest.mark.slow

REQUEST = Request(k=5)


@pytest.fixture
def histories(tmp_path: Path) -> Path:
    """A file of histories with a row group for each ten users."""
    path = tmp_path / "histories.parquet"
    make_histories().write_parquet(path, row_group_size=10)
    return path


def expected() -> pl.DataFrame:
    """What one call recommends."""
    return make_recommender().recommend(make_histories(), REQUEST.k)


def to_file(histories: Path, out: Path, request: Request = REQUEST, shard_size: int = SHARD_SIZE) -> Totals | None:
    return recommend_to_file(make_recommender(), open_histories(histories), request, out, shard_size=shard_size)


def assert_only(folder: Path, *names: str) -> None:
    """The folder holds these files and nothing that is half made."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


@pytest.mark.parametrize("shard_size", [1, 7, 10, 64, 1000])
def test_a_file_holds_what_one_call_recommends_whatever_the_shards(
    shard_size: int, histories: Path, tmp_path: Path
) -> None:
    out = tmp_path / "recs.parquet"
    totals = to_file(histories, out, shard_size=shard_size)
    assert pl.read_parquet(out).equals(expected())
    assert totals == Totals(users=101, unknown_items=2, cold_users=2, rows=len(expected()))
    assert_only(tmp_path, "histories.parquet", "recs.parquet")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_text_files_hold_the_same_rows(suffix: str, histories: Path, tmp_path: Path) -> None:
    out = tmp_path / f"recs.{suffix}"
    to_file(histories, out)
    found = pl.read_csv(out) if suffix == "csv" else pl.read_ndjson(out)
    assert found.columns == ["user", "item", "score", "rank"]
    assert found.cast({"score": pl.Float32, "rank": pl.Int32}).equals(expected())


@pytest.mark.parametrize("form", ["long.parquet", "long.csv", "lists.jsonl"])
def test_every_form_of_histories_gives_the_same(form: str, tmp_path: Path) -> None:
    given, path = make_histories(), tmp_path / form
    rows = given.explode("items").rename({"items": "item"}).drop_nulls()
    if form == "long.parquet":
        rows.write_parquet(path)
    elif form == "long.csv":
        rows.write_csv(path)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in given.to_dicts()))
    to_file(path, tmp_path / "recs.parquet")
    # The user without an item has no row in the long forms.
    wanted = expected() if form == "lists.jsonl" else expected().filter(pl.col("user") != "u100")
    assert pl.read_parquet(tmp_path / "recs.parquet").equals(wanted)


@pytest.mark.parametrize(
    ("request_", "arguments"),
    [
        (Request(k=5, filter_seen=False), {"filter_seen": False}),
        (Request(k=5, cold="skip"), {"cold": "skip"}),
        (Request(k=5, candidates_C=np.array([3, 9, 40])), {"only": ["i3", "i9", "i40"]}),
    ],
    ids=["seen items too", "no cold users", "some items only"],
)
def test_a_request_is_that_of_one_call(
    request_: Request, arguments: dict[str, Any], histories: Path, tmp_path: Path
) -> None:
    to_file(histories, tmp_path / "recs.parquet", request_)
    wanted = make_recommender().recommend(make_histories(), 5, **arguments)
    assert pl.read_parquet(tmp_path / "recs.parquet").equals(wanted)


SCRIPT = CHECKOUT / "tests" / "support" / "table_recommender.py"


def run_script(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `table_recommender.py` as the only process of a job."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *arguments],
        env={**run_environment(folder), **environment},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def computed(folder: Path) -> Counter[int]:
    """How often each shard was begun."""
    return Counter(int(line) for line in (folder / "computed").read_text().split())


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


def begin(histories: Path, out: Path) -> Path:
    """Leaves a file whose shards are all finished but one; returns the folder of the parts."""
    folder = out.with_name("recs.parquet.parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "join", stop)
        with pytest.raises(RuntimeError, match="stopped"):
            to_file(histories, out)
    shutil.rmtree(folder / "shard-00004")
    return folder


def stop(*_: object) -> int:
    raise RuntimeError("stopped")


def test_a_damaged_shard_is_computed_again(histories: Path, tmp_path: Path, log_lines: list[str]) -> None:
    folder = begin(histories, tmp_path / "recs.parquet")
    damaged = folder / "shard-00002" / "recommendations.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    to_file(histories, tmp_path / "recs.parquet")
    assert pl.read_parquet(tmp_path / "recs.parquet").equals(expected())
    assert any(line.startswith("shard computed again") for line in log_lines)
    assert f"resumes after {NUM_SHARDS - 2} of {NUM_SHARDS} shards" in log_lines


def test_a_resumed_file_keeps_its_shard_size(histories: Path, tmp_path: Path, log_lines: list[str]) -> None:
    begin(histories, tmp_path / "recs.parquet")
    to_file(histories, tmp_path / "recs.parquet", shard_size=3)
    assert pl.read_parquet(tmp_path / "recs.parquet").equals(expected())
    assert f"resumes after {NUM_SHARDS - 1} of {NUM_SHARDS} shards" in log_lines


@pytest.mark.parametrize("changed", ["k", "histories", "model"])
def test_parts_of_something_else_are_refused_and_kept(changed: str, histories: Path, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"
    folder = begin(histories, out)
    request, recommender = REQUEST, make_recommender()
    if changed == "k":
        request = Request(k=6)
    elif changed == "histories":
        make_histories(90).write_parquet(histories)
    else:
        recommender = make_recommender(seed=1)
    words = {"k": "request k 5, but here it is 6", "histories": "histories bytes ", "model": "model content "}
    with pytest.raises(UserError, match=rf"^[^\n]*plan.json: begun with {words[changed]}[^\n]*delete [^\n]*$"):
        recommend_to_file(recommender, open_histories(histories), request, out, shard_size=SHARD_SIZE)
    assert len(list(folder.glob("shard-*"))) == NUM_SHARDS - 1
    assert not out.exists()


def test_a_refused_history_leaves_nothing_where_no_shard_was_finished(histories: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="user u3 has item 'gone'"):
        to_file(histories, tmp_path / "recs.parquet", Request(k=5, unknown_items="refuse"))
    assert_only(tmp_path, "histories.parquet")
    with pytest.raises(UserError, match="user u50 has no item"):
        to_file(histories, tmp_path / "recs.parquet", Request(k=5, cold="refuse"), shard_size=64)
    assert_only(tmp_path, "histories.parquet")


@pytest.mark.parametrize("finished", [0, NUM_SHARDS], ids=["a shard", "the result"])
@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_file_that_cannot_be_written_whole_is_one_line(
    suffix: str, finished: int, histories: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"recs.{suffix}"
    to_file(histories, out)
    # Every shard is smaller than the result.
    size = out.stat().st_size - 100 if finished else 300
    out.unlink()
    with largest_file(size), pytest.raises(UserError, match=r"^[^\n]*File too large; make space[^\n]*$"):
        to_file(histories, out)
    assert_only(tmp_path, "histories.parquet", *([f"{out.name}.parts"] if finished else []))
    assert len(list(tmp_path.glob("*.parts/shard-*"))) == finished
    to_file(histories, out)
    assert_only(tmp_path, "histories.parquet", out.name)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a file system of its own, too small for all shards."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder, "48k"):
        yield folder


def test_a_full_disk_is_one_line_and_space_all_it_takes(disk: Path, histories: Path, log_lines: list[str]) -> None:
    out = disk / "recs.parquet"
    with pytest.raises(UserError, match=r"No space left on device; make space and run the same command again"):
        to_file(histories, out)
    assert_only(disk, "recs.parquet.parts")
    finished = len(list(disk.glob("recs.parquet.parts/shard-*")))
    assert 0 < finished < NUM_SHARDS
    assert not list(disk.glob("recs.parquet.parts/.*"))
    resize(disk, "8m")
    to_file(histories, out)
    assert f"resumes after {finished} of {NUM_SHARDS} shards" in log_lines
    assert pl.read_parquet(out).equals(expected())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_users(tmp_path: Path) -> None:
    """The second half of the histories would take more than 200 MB in memory."""
    run = subprocess.run(
        [sys.executable, str(CHECKOUT / "tests" / "support" / "streamed_memory.py"), str(tmp_path)],
        env=run_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = {name: float(value) for name, value in re.findall(r"(\w+) ([\d.]+) MB", run.stdout)}
    assert found["held"] > 200
    assert found["end"] - found["half"] < 50, run.stdout
    assert found["joined"] - found["end"] < 150, run.stdout


def test_rank_0_computes_a_shard_once_the_process_that_held_it_is_killed(histories: Path, tmp_path: Path) -> None:
    folder = begin(histories, tmp_path / "recs.parquet")
    shutil.rmtree(folder / "shard-00003")
    (holder,) = start_together("holder.py", str(folder), processes=1)
    with holder:
        wait_until((folder / "held").exists, "the other process holds shard 3", holder)
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


def test_streaming_an_export_needs_no_torch(tmp_path: Path) -> None:
    modules = ["stream", "history_files", "id_files"]
    imports = "; ".join(f"import tslrec.serving.streaming.{name}" for name in modules)
    heavy = "[name for name in ('torch', 'lightning', 'hydra', 'omegaconf', 'sklearn') if name in sys.modules]"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; {imports}; import tslrec.serving.tables; print({heavy})"],
        env=run_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=True,
    )
    assert run.stdout == "[]\n"

"""What a stopped file left: a damaged shard, another shard size, parts of another request."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import polars as pl
import pytest

from support.processes import start_together
from support.streamed import REQUEST, assert_only, begin, expected, to_file
from support.table_recommender import NUM_SHARDS, SHARD_SIZE, make_histories, make_recommender
from support.waiting import wait_until
from tslrec.serving.streaming import stream
from tslrec.serving.streaming.history_files import open_histories
from tslrec.serving.streaming.parts import Parts, parts_folder
from tslrec.serving.streaming.plan import Plan, Request
from tslrec.serving.streaming.stream import recommend_to_file
from tslrec.system.errors import UserError

pytestmark = pytest.mark.slow


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


def test_a_command_that_is_refused_leaves_the_parts_of_a_running_one(histories: Path, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"
    folder = parts_folder(out)
    plan = Plan.of(make_recommender(), open_histories(histories), REQUEST, SHARD_SIZE)
    assert Parts.begin_or_resume(folder, plan, first=True, unfinished=lambda: True) is not None
    # No shard is finished yet.
    with pytest.raises(UserError, match="begun with request k 5, but here it is 6"):
        to_file(histories, out, Request(k=6))
    (holder,) = start_together("holder.py", str(folder), processes=1)
    with holder:
        wait_until((folder / ".held").exists, "the other process holds shard 3", holder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream, "recommend_range", unreadable)
            with pytest.raises(UserError, match="unreadable"):
                to_file(histories, out)
        assert (folder / "plan.json").exists()
        holder.kill()
        holder.wait()
    (folder / ".held").unlink()
    to_file(histories, out)
    assert pl.read_parquet(out).equals(expected())
    assert_only(tmp_path, "histories.parquet", "recs.parquet")


def unreadable(*_: object) -> NoReturn:
    raise UserError("unreadable")


def test_a_folder_that_only_has_the_name_of_parts_is_refused_and_kept(histories: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recs.parquet.parts"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"recs\.parquet\.parts: is not what an unfinished file .* leaves"):
        to_file(histories, tmp_path / "recs.parquet")
    assert_only(folder, "notes.txt")


def test_what_is_put_among_the_parts_stays(histories: Path, tmp_path: Path) -> None:
    folder = begin(histories, tmp_path / "recs.parquet")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not what an unfinished file"):
        to_file(histories, tmp_path / "recs.parquet")
    assert len(list(folder.glob("shard-*"))) == NUM_SHARDS - 1
    assert (folder / "notes.txt").exists()

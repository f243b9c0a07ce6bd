"""What a stopped file left: a damaged shard, another shard size, parts of another request."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from support.streamed import REQUEST, begin, expected, to_file
from support.table_recommender import NUM_SHARDS, SHARD_SIZE, make_histories, make_recommender
from tslrec.serving.streaming.history_files import open_histories
from tslrec.serving.streaming.plan import Request
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

"""A file or a disk that is full ends in one line, and space is all that the next run needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from support.disk_limits import largest_file, resize, small_disk
from support.streamed import assert_only, expected, to_file
from support.table_recommender import NUM_SHARDS
from tslrec.system.errors import UserError

pytestmark = pytest.mark.slow


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

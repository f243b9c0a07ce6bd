"""Recommendations of the table recommender in a file: what they should be, and runs that were stopped."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from support.checkout import CHECKOUT
from support.runs import run_environment
from support.table_recommender import SHARD_SIZE, make_histories, make_recommender
from support.waiting import HANG_SECONDS
from tslrec.serving.streaming import stream
from tslrec.serving.streaming.history_files import open_histories
from tslrec.serving.streaming.plan import Request
from tslrec.serving.streaming.stream import Totals, recommend_to_file

REQUEST = Request(k=5)
SCRIPT = CHECKOUT / "tests" / "support" / "table_recommender.py"


def expected() -> pl.DataFrame:
    """What one call recommends."""
    return make_recommender().recommend(make_histories(), REQUEST.k)


def to_file(histories: Path, out: Path, request: Request = REQUEST, shard_size: int = SHARD_SIZE) -> Totals | None:
    return recommend_to_file(make_recommender(), open_histories(histories), request, out, shard_size=shard_size)


def assert_only(folder: Path, *names: str) -> None:
    """The folder holds these files and nothing that is half made."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


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

"""Recommendations in a file are those of one call, whatever the shards, and memory stays bounded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from support.checkout import CHECKOUT
from support.runs import run_environment
from support.streamed import assert_only, expected, to_file
from support.table_recommender import make_histories, make_recommender
from support.waiting import HANG_SECONDS
from tslrec.serving.streaming.plan import Request
from tslrec.serving.streaming.stream import Totals
from tslrec.system.errors import UserError

pytestmark = pytest.mark.slow


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


def test_a_refused_history_leaves_nothing_where_no_shard_was_finished(histories: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="user u3 has item 'gone'"):
        to_file(histories, tmp_path / "recs.parquet", Request(k=5, unknown_items="refuse"))
    assert_only(tmp_path, "histories.parquet")
    with pytest.raises(UserError, match="user u50 has no item"):
        to_file(histories, tmp_path / "recs.parquet", Request(k=5, cold="refuse"), shard_size=64)
    assert_only(tmp_path, "histories.parquet")


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

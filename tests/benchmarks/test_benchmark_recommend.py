"""The benchmark of recommending: its inputs can be used, its check finds other rows, and it compares like with like."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import tslrec
from recommend import main
from recommend_figures import Figures
from recommend_inputs import MEAN_LENGTH, NUM_ITEMS, write_histories, write_model
from recommend_users import check, differing_rows
from tslrec.system.errors import UserError

pytestmark = pytest.mark.slow

USERS, SHARD = 900, 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recommender, histories, and what is recommended to them."""
    folder = tmp_path_factory.mktemp("recommend")
    write_model(folder / "model")
    write_histories(folder / "histories.parquet", USERS, seed=1)
    recommended = tslrec.load(folder / "model").recommend(folder / "histories.parquet")
    recommended.write_parquet(folder / "recs.parquet")
    return folder


def test_the_histories_are_lists_of_known_items(folder: Path) -> None:
    histories = pl.read_parquet(folder / "histories.parquet")
    assert histories["user"].to_list() == list(range(USERS))
    lengths = histories["items"].list.len()
    assert (lengths.min(), lengths.max()) == (1, 2 * MEAN_LENGTH - 1)
    assert tslrec.load(folder / "model").catalogue.num_items == NUM_ITEMS


def test_rows_that_differ_are_counted(folder: Path, tmp_path: Path) -> None:
    given = (folder / "model", folder / "histories.parquet")
    assert differing_rows(*given, folder / "recs.parquet", USERS, USERS, seed=0) == 0
    rows = pl.read_parquet(folder / "recs.parquet").with_row_index()
    wrong = rows.with_columns(pl.when(pl.col("index") < 7).then(pl.lit("1")).otherwise(pl.col("item")).alias("item"))
    wrong.drop("index").write_parquet(tmp_path / "wrong.parquet")
    already = (rows["item"].head(7) == "1").sum()
    assert differing_rows(*given, tmp_path / "wrong.parquet", USERS, USERS, seed=0) == 7 - already
    wrong.drop("index").head(9).write_parquet(tmp_path / "short.parquet")
    with pytest.raises(UserError, match="9 rows for 900 users"):
        differing_rows(*given, tmp_path / "short.parquet", USERS, SHARD, seed=0)


@pytest.mark.parametrize("fault", ["computed_twice", "differing_rows", "shards_seen"])
def test_a_fault_fails_the_benchmark(fault: str) -> None:
    figures = Figures()
    for name, value in {"computed_twice": 0, "differing_rows": 0, "shards_seen": 4, "shards": 4}.items():
        figures.add(name, value + (name == fault), "count")
    with pytest.raises(UserError, match="computed twice, not seen, or has other rows"):
        check(figures, peaks=[1.0])


def test_too_much_memory_fails_the_benchmark() -> None:
    figures = Figures()
    for name in ("computed_twice", "differing_rows", "shards_seen", "shards"):
        figures.add(name, 0, "count")
    check(figures, peaks=[1.9])
    with pytest.raises(UserError, match="more than 2 GiB"):
        check(figures, peaks=[1.9, 2.1])


def test_recommending_is_timed_beside_an_evaluation(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    main(["--json", str(out), "evaluation", str(finished_run / "artifacts"), "--rounds", "2"])
    figures = json.loads(out.read_text())["figures"]
    assert figures["evaluation/users"]["value"] == figures["recommend/users"]["value"] == 60
    ratio = figures["recommend/seconds"]["value"] / figures["evaluation/seconds"]["value"]
    assert figures["recommend/times_an_evaluation"]["value"] == pytest.approx(ratio, rel=0.2)
    assert len(capsys.readouterr().out.splitlines()) == len(figures)

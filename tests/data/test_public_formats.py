"""Files as the public data sets have them: a few generated lines each, read by their preset."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from tslrec.cli.main import main
from tslrec.data.formats.times import TimeSpan
from tslrec.data.ingest import ingest, ingest_counted, read_raw
from tslrec.pipeline.choices import choice_title
from tslrec.pipeline.composition import compose_overrides
from tslrec.settings.data import DataConfig
from tslrec.system.errors import UserError

PRESETS = {
    "amazon_ratings": "A1,B1,5.0,1369699200\nA1,B2,3.0,1369699100\nA1,B3,1.0,1369699300\n",
    "amazon_ratings_2018": "B1,A1,5.0,1369699200\nB2,A1,3.0,1369699100\nB3,A1,1.0,1369699300\n",
    "amazon_ratings_2023": "user_id,parent_asin,rating,timestamp\n"
    "A1,B1,5.0,1369699200123\nA1,B2,3.0,1369699100123\nA1,B3,1.0,1369699300123\n",
    "movielens_dat": "A1::B1::5::1369699200\nA1::B2::3::1369699100\nA1::B3::1::1369699300\n",
    "movielens_100k": "A1\tB1\t5\t1369699200\nA1\tB2\t3\t1369699100\nA1\tB3\t1\t1369699300\n",
    "yoochoose": "A1,2014-04-07T10:54:09.868Z,B1,0\nA1,2014-04-07T10:51:09.277Z,B2,0\n"
    "A1,2014-04-07T10:57:00.306Z,B3,S\n",
    "hm": "t_dat,customer_id,article_id,price,sales_channel_id\n"
    "2018-09-21,A1,B1,0.05,2\n2018-09-20,A1,B2,0.03,2\n2018-09-22,A1,B3,0.01,2\n",
    "recbole": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "A1\tB1\t5\t1369699200\nA1\tB2\t3\t1369699100\nA1\tB3\t1\t1369699300\n",
}
"""One user with the items B1, B2, B3, of which B2 is the earliest and B3 the latest."""


def data_of(choice: str, path: Path, *overrides: str) -> DataConfig:
    return compose_overrides([f"data={choice}", f"data.path={path}", *overrides]).data


def items_of(choice: str, path: Path, *overrides: str) -> list[str]:
    """The first user's items in time order."""
    interactions = ingest(data_of(choice, path, *overrides), path.parent)
    return [interactions.ids.items[item] for item in interactions.sequence(0)]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_public_format_is_read_by_its_preset(name: str, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "public.file"
    content = PRESETS[name].encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    assert items_of(name, path) == ["B2", "B1", "B3"]
    assert choice_title("data", name) != name


def test_low_ratings_are_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(PRESETS["amazon_ratings"] + "A1,B4,4.0,1369699400\nA1,B5,2.5,1369699500\n")
    filters = ("data.reader.rating_column=rating", "data.reader.min_rating=3")
    interactions, facts = ingest_counted(data_of("amazon_ratings", path, *filters), tmp_path)
    assert interactions.ids.items == ("", "B1", "B2", "B4")
    assert (facts["rows"], facts["dropped"]) == (3, {"rated below 3": 2})


def test_columns_by_number_take_the_first_line_for_a_row(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text("x,7,a\nx,8,b\nx,9,c\n")
    numbers = ("data.reader.user_column=0", "data.reader.item_column=2", "data.reader.time_column=1")
    interactions, facts = ingest_counted(data_of("csv", path, *numbers), tmp_path)
    assert interactions.num_interactions == 3
    assert facts["notes"] == ["No header: the first line, x, 7, a, is a row."]


@pytest.mark.parametrize("separator", ["\\t", '"\\t"', "tab", "\t", '"\t"'])
def test_a_tab_may_be_spelled_in_any_way(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('user\titem\tname\ttimestamp\na\tx\t"open\t1\na\ty\t5"\t2\na\tz\tn\t3\n')
    assert items_of("csv", path, f"data.reader.separator={separator}") == ["x", "y", "z"]


def test_spark_parts_are_one_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "log.parquet"
    (folder / "day=1").mkdir(parents=True)
    for part, items in (("part-0.parquet", ["x", "y"]), ("day=1/part-1.parquet", ["z"])):
        pl.DataFrame({"user": ["a"] * len(items), "item": items}).write_parquet(folder / part)
    for other in ("_SUCCESS", ".part-0.parquet.crc"):
        (folder / other).write_text("")
    untimed = "data.reader.time_column=null"
    assert items_of("parquet", folder, untimed) == ["z", "x", "y"]
    pl.DataFrame({"user": ["a", None], "item": ["u", "v"]}).write_parquet(folder / "part-2.parquet")
    with pytest.raises(UserError, match=r"part-2\.parquet, line 2: 'user' is empty"):
        items_of("parquet", folder, untimed)


def test_a_list_of_items_per_user_is_a_row_for_each(tmp_path: Path) -> None:
    path = tmp_path / "lists.parquet"
    table = {"user": ["a", "b"], "item": [["x", "y", "z"], []], "timestamp": [[3, 1, 2], []]}
    pl.DataFrame(table).write_parquet(path)
    interactions, facts = ingest_counted(data_of("parquet", path), tmp_path)
    assert [interactions.ids.items[item] for item in interactions.sequence(0)] == ["y", "z", "x"]
    assert facts["dropped"] == {"users without items": 1}


@pytest.mark.parametrize(("kept", "order"), [("first", ["x", "y", "z"]), ("last", ["y", "x", "z"])])
def test_duplicates_are_counted_and_one_is_kept(kept: str, order: list[str], tmp_path: Path) -> None:
    path = tmp_path / "doubled.csv"
    path.write_text("user,item,timestamp\na,x,1\na,y,1\na,x,1\na,z,2\n")
    with pytest.raises(UserError, match=r"line 4: .* line 2 already; 1 rows repeat .*duplicates=first"):
        items_of("csv", path)
    assert items_of("csv", path, f"data.reader.duplicates={kept}") == order


@pytest.mark.parametrize(
    ("times", "order"),
    [
        (["2020-01-02", "2020-01-01T23:00:00-02:00", "2020-01-02 00:30"], "acb"),
        (["9007199254740995", "9007199254740993", "9007199254740994"], "bca"),
        (["9007199254740993.5", "9007199254740993.25", "9007199254740993"], "cba"),
        (["-1.5", "-1.25", "1e-3"], "abc"),
        (["2020-01-02T00:00:00.000000002Z", "2020-01-02T00:00:00.000000001Z", "2020-01-03T00:00:00Z"], "bac"),
        (["9999-12-31", "2020-01-02T00:00:00.000000002Z", "2020-01-02T00:00:00.000000001Z"], "cba"),
        (["0001-01-01T00:00:00.000000002", "0001-01-01T00:00:00.000000001", "1969-12-31T23:59:59.999999999"], "bac"),
    ],
)
def test_times_are_ordered_exactly(times: list[str], order: str, tmp_path: Path) -> None:
    rows = [f"u,{item},{time}" for item, time in zip("abc", times, strict=True)]
    path = tmp_path / "times.csv"
    path.write_text("\n".join(["user,item,timestamp", *rows]))
    assert "".join(items_of("csv", path)) == order
    table = {"user": ["u"] * 3, "item": list("abc"), "timestamp": times}
    pl.DataFrame(table).write_parquet(tmp_path / "times.parquet")
    assert "".join(items_of("parquet", tmp_path / "times.parquet")) == order


def test_far_dates_keep_ties_and_their_span(tmp_path: Path) -> None:
    path = tmp_path / "far.csv"
    times = ["9999-12-31", "2020-01-02T00:00:00.000000001Z", "2020-01-02T02:00:00.000000001+02:00"]
    path.write_text("\n".join(["user,item,timestamp", *(f"u,{item},{time}" for item, time in enumerate(times))]))
    raw, _ = read_raw(data_of("csv", path), tmp_path)
    assert raw.rows["timestamp"].to_list() == [2, 1, 1]
    assert raw.reading.times == TimeSpan("2020-01-02", "9999-12-31")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user,item,timestamp\na,x,1\nb\n", r"line 3: has 1 fields, but line 1 has 3"),
        ("user,item,timestamp\na,x,1\na,y,2,3\n", r"line 3: has 4 fields"),
        ('user,item,timestamp\na,"x,1\nb,y,2\nb,z",3\n', r"line 2: a quote swallows 2 lines"),
        ('user,item,timestamp\na,"x,1\nb,y,2\n', r"line 2: a quote is not closed"),
        ("user,item,timestamp\n\n\na, ,1\n", r"line 4: 'item' is empty"),
        ("user,item,timestamp\ra,x,1\r\ra,y\r", r"line 4: has 2 fields"),
        ("user;item;timestamp\na;x;1\n", r"line 1: .*separator=semicolon"),
        ("user,item,timestamp\na,x,2020-02-30\n", r"line 2: 'timestamp' is '2020-02-30'"),
        ("a,x,1\nb,y,2\n", r"no column 'user', but a, x, 1; .*without a header.*data\.reader\.columns"),
        ("visitors,item,timestamp\na,x,1\n", r"data\.reader\.user_column"),
        ("PK\x03\x04", r"zip archive.*unpack it"),
        ('{"user": 1}\n', r"is JSON"),
    ],
)
def test_a_line_that_is_no_row_is_named(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content.encode())
    with pytest.raises(UserError, match=message) as raised:
        items_of("csv", path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value).replace(str(tmp_path), "")) <= 300


def test_other_encodings_are_read_or_called_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    text = "user,item,timestamp\na,é,1\na,y,2\na,z,3\n"
    path.write_bytes(text.encode("utf-16"))
    interactions, facts = ingest_counted(data_of("csv", path), tmp_path)
    assert interactions.ids.items == ("", "é", "y", "z")
    assert facts["notes"] == ["Decoded from UTF-16."]
    path.write_bytes(text.encode("utf-16-le"))
    with pytest.raises(UserError, match="UTF-16 without"):
        items_of("csv", path)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"line 2: is not UTF-8 text \(Latin-1"):
        items_of("csv", path)


def test_the_audit_says_what_was_read_and_what_the_times_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    path = tmp_path / "mixed.csv"
    path.write_text("user,item,timestamp\n\na,x,1600000000\na,y,1600000001000\na,z,1600000002\n   \nb,x,1600000003\n")
    written = tmp_path / "audit.json"
    main(["audit", "data=csv", f"data.path={path}", "data.min_user_interactions=2", "--json", str(written)])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Rows: 4 read; dropped: 2 blank lines, 1 by the k-core filter" in printed
    assert "Timestamps: 2020-09-13 to 52671-12-25, read as seconds, but some are milliseconds" in printed
    assert "The times mix units, which differ by factors of a thousand: 3 seconds and 1 milliseconds." in printed
    facts = json.loads(written.read_text())["rows"]
    assert facts["read"] == 4
    assert facts["reading"]["dropped"] == {"blank lines": 2}
    assert facts["filtered"]["count"] == 1

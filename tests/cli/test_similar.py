"""`tslrec similar`: the nearest items as a table or a file, and one line for what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import tslrec
from support.disk_limits import largest_file
from tslrec.cli.main import main


@pytest.fixture
def model(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The artifacts folder with a single run; the working directory and the terminal are the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return str(finished_run / "artifacts")


@pytest.fixture
def items(model: str) -> list[str]:
    """The raw ids of the items."""
    return tslrec.load(model).catalogue.raw_ids.to_list()[1:]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line with which a command ends that cannot work."""
    with pytest.raises(SystemExit) as ended:
        main(["similar", *arguments])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    return printed.err


def test_a_table_lists_the_nearest_items_with_their_titles(
    model: str, items: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = tslrec.load(model).similar([items[4], items[0]], 3)
    pl.DataFrame({"item_id": items, "title": [f"T-{item}" for item in items]}).write_csv("titles.csv")
    main(["similar", model, items[4], items[0], "-k", "3", "--titles", "titles.csv"])
    header, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == ["item", "rank", "similar", "title", "cosine"]
    assert [row[0] for row in rows[::3]] == [items[4], items[0]]
    assert [row[-3:] for row in rows] == [
        [each["similar"], f"T-{each['similar']}", f"{each['cosine']:.4f}"] for each in wanted.to_dicts()
    ]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_file_holds_what_the_recommender_gives(suffix: str, model: str, items: list[str]) -> None:
    Path("only.txt").write_text("\n".join(items[:9]))
    Path("without.txt").write_text(items[2])
    limits = ["--only", "only.txt", "--without", "without.txt"]
    main(["similar", model, items[7], "-k", "5", *limits, "--out", f"near.{suffix}"])
    readers: dict[str, Callable[[str], pl.DataFrame]] = {"parquet": pl.read_parquet, "csv": pl.read_csv}
    wanted = tslrec.load(model).similar([items[7]], 5, only=items[:9], without=[items[2]])
    found = readers.get(suffix, pl.read_ndjson)(f"near.{suffix}")
    assert found["similar"].to_list() == wanted["similar"].to_list()
    assert found["cosine"].to_list() == pytest.approx(wanted["cosine"].to_list())
    assert set(found["similar"]) <= {*items[:9]} - {items[2], items[7]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "ITEM"),
        (["nothing"], "the catalogue has no item 'nothing'"),
        (["ITEM", "-k", "41"], "k=41: must be an integer from 1 to 40"),
        (["ITEM", "--only", "nowhere.txt"], "nowhere.txt: there is no such file"),
        (["ITEM", "--without", "empty.txt"], "empty.txt: names no id"),
        (["ITEM", "--out", "near.txt"], "--out near.txt: name a file that ends in"),
        (["ITEM", "--out", "nowhere/near.csv"], "there is no folder nowhere"),
        (["ITEM", "--out", "there.csv"], "--out there.csv: exists already"),
    ],
)
def test_what_is_wrong_ends_in_one_line(
    arguments: list[str], words: str, model: str, items: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.txt").touch()
    Path("there.csv").touch()
    line = refusal(capsys, model, *(items[0] if each == "ITEM" else each for each in arguments))
    assert words in line
    assert sorted(path.name for path in Path().iterdir()) == ["empty.txt", "there.csv"]


def test_a_full_disk_is_one_line_and_leaves_nothing(
    model: str, items: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with largest_file(100):
        line = refusal(capsys, model, *items[:9], "--out", "near.parquet")
    assert "File too large; make space, or name another file" in line
    assert list(Path().iterdir()) == []

"""`tslrec audit` counts how the file of titles fits the items, where there is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.checkout import CHECKOUT
from tslrec.cli.main import main

SHARED = CHECKOUT.parent / "shared" / "data"
COUNTS = {"items": 4, "missing": 2, "repeated_ids": 1, "shared_titles": 1, "unknown_ids": 1}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "users.txt").write_text("u1 a b c\nu2 d a b\n")
    titles = "item_id,title\na,Soap\nb,Soap\nb,Oil\nc, \nunknown,Salt\n"
    (tmp_path / "raw" / "titles.csv").write_text(titles)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def audited(*overrides: str) -> dict[str, Any]:
    main(["audit", *overrides, "--json", "audit.json"])
    written: dict[str, Any] = json.loads(Path("audit.json").read_text())
    return written


def refused(*overrides: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["audit", *overrides])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return str(line)


def test_the_counts_are_printed_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    given = audited("data=user_lines", "data.path=raw/users.txt", "data.titles=raw/titles.csv")
    assert given["titles"] == COUNTS
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 50.00% items have a title 2 50.00% items have none: they go by `item RAWID`" in printed
    assert "1 ids stand in several rows: the first title counts 1 titles stand for several items" in printed
    assert "1 ids with a row are of no item of the data" in printed


def test_folder_stands_for_that_of_the_raw_file(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("data=user_lines", "data.path=raw/users.txt", 'data.titles="{folder}/titles.csv"')
    assert audited(*given)["titles"] == COUNTS
    Path("raw/titles.csv").unlink()
    assert audited(*given)["titles"] is None
    assert "Titles" not in capsys.readouterr().out.split("Popularity")[-1]


def test_without_titles_nothing_is_counted() -> None:
    assert audited("data=user_lines", "data.path=raw/users.txt")["titles"] is None


def test_a_file_that_is_named_and_missing_or_cannot_be_read_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("data=user_lines", "data.path=raw/users.txt")
    line = refused(*given, "data.titles=titles.csv", capsys=capsys)
    assert line == "error: titles.csv: there is no such file; give the right one with data.titles=FILE"
    Path("raw/titles.csv").write_text("item_id,title\na,So, ap\n")
    assert "line 2: has 3 fields" in refused(*given, "data.titles=raw/titles.csv", capsys=capsys)


@pytest.mark.parametrize(
    ("name", "file", "items", "missing"),
    [
        ("beauty", "beauty/beauty.txt", 12_101, 7),
        ("yelp", "yelp/yelp.txt", 20_033, 1),
        ("ml1m", "ml-1m/ml-1m.txt", 3_416, 0),
    ],
)
def test_the_public_data_sets_find_the_titles_beside_their_raw_file(
    name: str, file: str, items: int, missing: int
) -> None:
    if not (SHARED / file).with_name("titles.csv").is_file():
        pytest.skip("the data sets are not beside the checkout")
    titles = audited(f"data={name}", f"data.path={SHARED / file}")["titles"]
    assert (titles["items"], titles["missing"], titles["unknown_ids"]) == (items, missing, 0)

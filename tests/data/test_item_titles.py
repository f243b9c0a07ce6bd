"""The titles of a data set's items: what stands for a missing one, what is counted, and what a stage reads back."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from support.checkout import CHECKOUT
from tslrec.data.item_titles import (
    FILE,
    ItemTitles,
    TitleCounts,
    match_titles,
    read_item_titles,
    read_known_titles,
    write_item_titles,
)
from tslrec.data.titles_file import read_titles_file
from tslrec.system.errors import UserError

RAW_IDS = ("", "b", "a", "10", "none", "blank", "same")
TEXT = 'item_id,title\na,Soap\nb,"Oil, olive"\na,Other\nblank,  \n10,\n10,Ten\nsame,Soap\nx,X\nx,X\ny,Soap\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "titles.csv").write_text(TEXT)
    return tmp_path / "titles.csv"


def test_a_missing_title_is_neutral_and_counted(path: Path, tmp_path: Path) -> None:
    counts = write_item_titles(path, RAW_IDS, "written", tmp_path)
    assert counts == TitleCounts(items=6, missing=2, repeated_ids=3, shared_titles=1, unknown_ids=2)
    assert counts.titled == 4
    texts = ["", "Oil, olive", "Soap", "Ten", "item none", "item blank", "Soap"]
    assert read_item_titles(tmp_path) == ItemTitles(texts, num_missing=2)
    assert read_known_titles(tmp_path) == [None, "Oil, olive", "Soap", "Ten", None, None, "Soap"]


def test_a_file_of_other_items_is_refused(tmp_path: Path) -> None:
    (tmp_path / "others.csv").write_text("item_id,title\nB01,Soap\nB02,Oil\n")
    with pytest.raises(
        UserError, match=r"no row of any of the 6 items of data=written: its first item_id is 'B01', th"
    ):
        write_item_titles(tmp_path / "others.csv", RAW_IDS, "written", tmp_path)
    assert not (tmp_path / FILE).exists()


def test_a_file_without_any_title_gives_neutral_ones(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("item_id,title\na,\n")
    assert write_item_titles(tmp_path / "empty.csv", RAW_IDS, "written", tmp_path).missing == 6
    assert read_item_titles(tmp_path).texts[1:3] == ["item b", "item a"]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="delete the folder"):
        read_item_titles(tmp_path)
    (tmp_path / FILE).write_text("none")
    with pytest.raises(UserError, match="delete the folder"):
        read_item_titles(tmp_path)
    pl.DataFrame({"title": [""]}).write_parquet(tmp_path / FILE)
    with pytest.raises(UserError, match="delete the folder"):
        read_item_titles(tmp_path)


@pytest.mark.parametrize(
    ("folder", "items", "missing", "shared"),
    [("beauty", 12_101, 7, 27), ("yelp", 20_033, 1, 1_205), ("ml-1m", 3_416, 0, 0)],
)
def test_the_titles_beside_the_public_data_sets(folder: str, items: int, missing: int, shared: int) -> None:
    path = CHECKOUT.parent / "shared" / "data" / folder / "titles.csv"
    if not path.is_file():
        pytest.skip("the data sets are not beside the checkout")
    raw_ids = ["", *(str(item) for item in range(1, items + 1))]
    titles, counts = match_titles(raw_ids, read_titles_file(path))
    assert counts == TitleCounts(items, missing, repeated_ids=0, shared_titles=shared, unknown_ids=0)
    assert titles.count(None) == missing

"""The titles of a data set's items: matched with a file, counted, written as an artifact and read by stages.

Shapes: I items (index 0 is padding).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tslrec.data.formats.wording import brief
from tslrec.data.titles_file import first_titles, read_titles_file
from tslrec.system.errors import UserError

FILE = "titles.parquet"
"""Columns `raw_id`, `title` and `missing`, a row per item number; row 0 is padding."""


@dataclass(frozen=True)
class ItemTitles:
    """A text for each item.

    Attributes:
        texts: length I + 1; index = item number, index 0 is "". An item without a title has the neutral `item RAWID`.
        num_missing: items without a title.
    """

    texts: list[str]
    num_missing: int


@dataclass(frozen=True)
class TitleCounts:
    """How a file of titles fits the items of a data set.

    Attributes:
        items: I.
        missing: items without a title: no row has their id, or their title is empty.
        repeated_ids: ids that stand in several rows of the file; the first title counts.
        shared_titles: titles that stand for several items.
        unknown_ids: ids in the file that no item has.
    """

    items: int
    missing: int
    repeated_ids: int
    shared_titles: int
    unknown_ids: int

    @property
    def titled(self) -> int:
        """Items with a title."""
        return self.items - self.missing


def neutral_title(raw_id: str) -> str:
    """What stands for the title of an item that has none."""
    return f"item {raw_id}"


def match_titles(raw_ids: Sequence[str], rows: pl.DataFrame) -> tuple[list[str | None], TitleCounts]:
    """The title of each item, and how the file fits.

    Args:
        raw_ids: of items 0..I; item 0 is padding.
        rows: of the file (`read_titles_file`).

    Returns:
        Of items 1..I the title, None without one; and the counts.
    """
    items = pl.DataFrame({"raw_id": list(raw_ids[1:])}, schema={"raw_id": pl.String})
    found = items.join(first_titles(rows), on="raw_id", how="left", maintain_order="left")["title"]
    in_file = rows["raw_id"]
    counts = TitleCounts(
        items=len(items),
        missing=found.null_count(),
        repeated_ids=int((in_file.value_counts()["count"] > 1).sum()),
        shared_titles=int((found.drop_nulls().value_counts()["count"] > 1).sum()),
        unknown_ids=rows.select("raw_id").unique().join(items, on="raw_id", how="anti").height,
    )
    return found.to_list(), counts


def texts_of_file(
    path: Path, raw_ids: Sequence[str], name: str, given: str = "data.titles=FILE"
) -> tuple[list[str], list[bool], TitleCounts]:
    """The text of each item by a file of titles, whether it is a neutral one, and how the file fits.

    Args:
        path: the file of titles.
        raw_ids: of items 0..I; item 0 is padding, and has no text.
        name: the data set's.
        given: how a person names another file, for messages.

    Raises:
        UserError: if the file cannot be read, or all of its rows are of other items.
    """
    rows = read_titles_file(path, given)
    titles, counts = match_titles(raw_ids, rows)
    if counts.unknown_ids == rows["raw_id"].n_unique():
        raise UserError(
            f"{path}: has no row of any of the {counts.items:,} items of data={name}: its first item_id is "
            f"'{brief(rows['raw_id'][0], 24)}', the data's '{brief(raw_ids[1], 24)}'; give titles of these items"
        )
    return *with_neutral_titles(titles, raw_ids), counts


def write_item_titles(path: Path, raw_ids: Sequence[str], name: str, folder: Path) -> TitleCounts:
    """Writes `titles.parquet` from a file of titles.

    Args:
        path: the file of titles.
        raw_ids: of items 0..I; item 0 is padding.
        name: the data set's.
        folder: an existing folder.

    Returns:
        How the file fits.

    Raises:
        UserError: if the file cannot be read, or all of its rows are of other items.
    """
    texts, missing, counts = texts_of_file(path, raw_ids, name)
    write_texts(texts, missing, raw_ids, folder)
    return counts


def write_own_titles(own: Sequence[str], raw_ids: Sequence[str], folder: Path) -> TitleCounts:
    """Writes `titles.parquet` from titles that the data set has of its own.

    Args:
        own: of items 0..I; a blank one is missing.
        raw_ids: of items 0..I; item 0 is padding.
        folder: an existing folder.

    Returns:
        How many there are.
    """
    rows = pl.DataFrame({"raw_id": list(raw_ids[1:]), "title": [" ".join(title.split()) for title in own[1:]]})
    titles, counts = match_titles(raw_ids, rows)
    write_texts(*with_neutral_titles(titles, raw_ids), raw_ids, folder)
    return counts


def with_neutral_titles(titles: Sequence[str | None], raw_ids: Sequence[str]) -> tuple[list[str], list[bool]]:
    """The text of each of the items 1..I, and whether it is the neutral one, since the item has no title."""
    texts = [
        neutral_title(raw_id) if title is None else title for raw_id, title in zip(raw_ids[1:], titles, strict=True)
    ]
    return texts, [title is None for title in titles]


def write_texts(texts: Sequence[str], missing: Sequence[bool], raw_ids: Sequence[str], folder: Path) -> None:
    """Writes `titles.parquet`.

    Args:
        texts: of items 1..I.
        missing: whether it is the neutral one.
        raw_ids: of items 0..I; item 0 is padding.
        folder: an existing folder.
    """
    frame = pl.DataFrame({"raw_id": list(raw_ids), "title": ["", *texts], "missing": [False, *missing]})
    frame.write_parquet(folder / FILE)


def read_item_titles(folder: Path) -> ItemTitles:
    """Reads the titles of all items.

    Args:
        folder: of the titles' artifact, `context.inputs["titles"]` of a stage that reads `titles`.

    Raises:
        UserError: if the file is missing or damaged.
    """
    frame = read_frame(folder)
    return ItemTitles(frame["title"].to_list(), int(frame["missing"].sum()))


def read_known_titles(folder: Path) -> list[str | None]:
    """As `ItemTitles.texts`, but None in place of the neutral titles and of padding's."""
    known = pl.when(~pl.col("missing") & (pl.col("title") != "")).then("title")
    return read_frame(folder).select(known)["title"].to_list()


def read_frame(folder: Path) -> pl.DataFrame:
    """The columns `title` and `missing` of the artifact's file."""
    try:
        return pl.read_parquet(folder / FILE, columns=["title", "missing"], glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(
            f"{folder / FILE}: not readable ({str(error).splitlines()[0]}); delete the folder, and the next run makes "
            "it again"
        ) from error

"""Titles of items, from a CSV or Parquet file."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tslrec.system.errors import UserError


def read_titles(path: Path) -> pl.DataFrame:
    """Reads the columns `item_id` and `title` of a CSV or Parquet file.

    Returns:
        Columns `raw_id` and `title` (String); the first title of an id counts, and empty ones are left out.

    Raises:
        UserError: if the file cannot be read, or lacks a column.
    """
    try:
        frame = (
            pl.read_parquet(path, glob=False)
            if path.suffix == ".parquet"
            else pl.read_csv(path, infer_schema=False, glob=False)
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: no readable titles ({str(error).splitlines()[0]}); give CSV or Parquet") from error
    if not {"item_id", "title"} <= set(frame.columns):
        raise UserError(f"{path}: has the columns {', '.join(frame.columns)}; titles need item_id and title")
    titles = frame.select(pl.col("item_id").cast(pl.String).alias("raw_id"), pl.col("title").cast(pl.String))
    named = titles.filter(pl.col("title").str.strip_chars() != "")
    return named.unique("raw_id", keep="first", maintain_order=True)


def with_titles(items: pl.DataFrame, titles: pl.DataFrame) -> pl.DataFrame:
    """A catalogue's rows with the titles of a file in the column `title`; an item without one keeps what it has."""
    joined = items.join(titles.rename({"title": "new"}), on="raw_id", how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce("new", "title").alias("title")).drop("new")

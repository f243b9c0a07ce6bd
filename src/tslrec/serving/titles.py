"""Puts the titles of a file beside the items of a catalogue."""

from __future__ import annotations

import polars as pl


def with_titles(items: pl.DataFrame, titles: pl.DataFrame) -> pl.DataFrame:
    """A catalogue's rows with other titles in the column `title`; an item without one keeps what it has.

    Args:
        items: the catalogue's rows.
        titles: columns `raw_id` and `title`, a row per id.
    """
    joined = items.join(titles.rename({"title": "new"}), on="raw_id", how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce("new", "title").alias("title")).drop("new")

"""Recommendations as tables on a terminal."""

from __future__ import annotations

import polars as pl
from rich.table import Table


def table_of(frame: pl.DataFrame, group: str, item: str, value: str, without_value: str = "") -> Table:
    """Lists as a table: a block of rows for each value of the first column, which only its first row shows.

    Args:
        frame: columns `group`, `rank`, `item`, perhaps `title`, and `value`; rows of a group are together.
        group: the column whose lists these are: `user`, or the item to which others are near.
        item: the column of listed raw ids.
        value: the column of scores.
        without_value: what stands for a score that is missing.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    with_titles = "title" in frame.columns
    table.add_column(group)
    table.add_column("rank", justify="right")
    table.add_column(item)
    if with_titles:
        table.add_column("title")
    table.add_column(value, justify="right")
    for row in frame.iter_rows(named=True):
        titles = [row["title"] or ""] if with_titles else []
        number = without_value if row[value] is None else f"{row[value]:.4f}"
        first = row["rank"] == 1
        if first and table.row_count:
            table.add_section()
        table.add_row(str(row[group]) if first else "", str(row["rank"]), row[item], *titles, number)
    return table

"""A line per interaction: `user item`, separated by white space; users and their items in time order."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tslrec.errors import UserError
from tslrec.sources.raw import RawInteractions, read_text


def read(path: Path) -> RawInteractions:
    """Reads the format of SASRec's ml-1m.txt.

    Raises:
        UserError: if a line has not two fields.
    """
    rows = (
        pl.DataFrame({"text": pl.Series(read_text(path).splitlines(), dtype=pl.String)})
        .with_columns((pl.int_range(pl.len(), dtype=pl.Int64) + 1).alias("line"))
        .filter(pl.col("text").str.strip_chars() != "")
        .with_columns(pl.col("text").str.extract_groups(r"^\s*(?<user>\S+)\s+(?<item>\S+)\s*$").alias("fields"))
        .unnest("fields")
    )
    bad = rows.filter(pl.col("item").is_null())
    if len(bad):
        count = len(bad["text"][0].split())
        raise UserError(
            f"{path}, line {bad['line'][0]}: has {count} field(s) instead of `user item`; separate by white space, "
            "or choose data=user_lines or data=csv"
        )
    return RawInteractions(rows.select("user", "item", "line"))

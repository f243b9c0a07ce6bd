"""The format with one line per interaction: `user item`, separated by white space, each user's lines in time order."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tslrec.data.formats.base import RawInteractions, read_lines
from tslrec.system.errors import UserError


def read(path: Path) -> RawInteractions:
    """Reads a file in the format of the ml-1m.txt that SASRec's authors published.

    Raises:
        UserError: if there is no such file, it is not text, or a line does not have two fields.
    """
    rows = (
        read_lines(path)
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

"""A line per user: `user item item …`, separated by white space, in time order."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tslrec.errors import UserError
from tslrec.sources.raw import RawInteractions, read_text


def read(path: Path) -> RawInteractions:
    """Reads the format of S3-Rec's Beauty and Yelp.

    Raises:
        UserError: if a line has no item, or a user has two lines.
    """
    lines = (
        pl.DataFrame({"text": pl.Series(read_text(path).splitlines(), dtype=pl.String)})
        .with_columns((pl.int_range(pl.len(), dtype=pl.Int64) + 1).alias("line"))
        .with_columns(pl.col("text").str.extract_all(r"\S+").alias("fields"))
        .filter(pl.col("fields").list.len() > 0)
    )
    short = lines.filter(pl.col("fields").list.len() < 2)
    if len(short):
        what = "has a comma, but no white space" if "," in short["text"][0] else "names a user without items"
        raise UserError(f"{path}, line {short['line'][0]}: {what}; each line is `user item item …`")
    users = lines.with_columns(pl.col("fields").list.first().alias("user"))
    again = users.filter(pl.col("user").is_duplicated())
    if len(again):
        same = again.filter(pl.col("user") == again["user"][0])["line"]
        raise UserError(
            f"{path}, line {same[1]}: user {again['user'][0]} has line {same[0]} already; join the lines, or choose "
            "data=pair_lines if each line is one interaction"
        )
    items = users.select("user", pl.col("fields").list.slice(1).alias("item"), "line")
    return RawInteractions(items.explode("item"))

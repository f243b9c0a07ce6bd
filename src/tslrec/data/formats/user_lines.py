"""The format with one line per user: `user item item …`, separated by white space, the items in time order."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tslrec.data.formats.base import RawInteractions, Reading, read_lines
from tslrec.data.formats.wording import brief
from tslrec.system.errors import UserError


def read(path: Path) -> RawInteractions:
    """Reads a file in the format of the Beauty and Yelp files that S3-Rec's authors published.

    Raises:
        UserError: if there is no such file, it is not text, a line has no item, or a user has two lines.
    """
    all_lines = read_lines(path)
    lines = all_lines.with_columns(pl.col("text").str.extract_all(r"[^ \t]+").alias("fields")).filter(
        pl.col("fields").list.len() > 0
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
            f"{path}, line {same[1]}: user {brief(again['user'][0])} has line {same[0]} already; join the lines, or "
            "choose data=pair_lines if each line is one interaction"
        )
    items = users.select("user", pl.col("fields").list.slice(1).alias("item"), "line")
    blank = {"blank lines": len(all_lines) - len(lines)} if len(all_lines) > len(lines) else {}
    return RawInteractions(items.explode("item"), reading=Reading(blank))

"""The format with one line per interaction: `user item`, separated by white space, each user's lines in time order."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tslrec.data.formats.base import RawInteractions, Reading, read_lines
from tslrec.system.errors import UserError

PAIR = r"^[ \t]*(?<user>[^ \t]+)[ \t]+(?<item>[^ \t]+)[ \t]*$"
"""White space is blanks and tabs; a no-break space may be a part of an id."""


def read(path: Path) -> RawInteractions:
    """Reads a file in the format of the ml-1m.txt that SASRec's authors published.

    Raises:
        UserError: if there is no such file, it is not text, or a line does not have two fields.
    """
    lines = read_lines(path)
    rows = (
        lines.filter(pl.col("text").str.strip_chars() != "")
        .with_columns(pl.col("text").str.extract_groups(PAIR).alias("fields"))
        .unnest("fields")
    )
    bad = rows.filter(pl.col("item").is_null())
    if len(bad):
        count = len(bad["text"][0].split())
        other = "choose data=movielens_100k (`user item rating time`)" if count == 4 else "or choose data=user_lines"
        raise UserError(
            f"{path}, line {bad['line'][0]}: has {count} field(s) instead of `user item`; separate by white space, "
            f"{other} or data=csv"
        )
    blank = {"blank lines": len(lines) - len(rows)} if len(lines) > len(rows) else {}
    return RawInteractions(rows.select("user", "item", "line"), reading=Reading(blank))

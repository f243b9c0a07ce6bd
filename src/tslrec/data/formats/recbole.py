"""RecBole's atomic `.inter` format: tab-separated, with a header that names and types each column: `user_id:token`."""

from __future__ import annotations

from pathlib import Path

from tslrec.data.formats.base import RawInteractions, named_rows, read_text
from tslrec.data.formats.tables import parse_separated
from tslrec.system.errors import UserError


def read(
    path: Path, *, user_column: str = "user_id", item_column: str = "item_id", time_column: str | None = "timestamp"
) -> RawInteractions:
    """Reads an `.inter` file; all but the named columns are ignored.

    Args:
        path: the file.
        user_column: name of the column of users, without its type.
        item_column: name of the column of items, without its type.
        time_column: name of the column of timestamps, without its type; None if the rows are in time order.

    Raises:
        UserError: if the header is not typed, a column is missing, or a time is not a number.
    """
    text = read_text(path)
    header = text.splitlines()[0].split("\t")
    untyped = [name for name in header if ":" not in name]
    if untyped:
        raise UserError(
            f"{path}, line 1: '{untyped[0]}' is not typed like user_id:token; an .inter file is separated by tabs, "
            "else choose data=csv"
        )
    table = parse_separated(text, path, "\t")
    table = table.rename({name: name.rsplit(":", 1)[0] for name in table.columns})
    return named_rows(
        table, path, user_column=user_column, item_column=item_column, time_column=time_column, first_line=2
    )

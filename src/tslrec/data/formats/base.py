"""The result of every reader, and the checks that readers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tslrec.system.errors import UserError


@dataclass(frozen=True)
class RawInteractions:
    """Interactions as a file has them, in file order.

    Attributes:
        rows: columns `user` and `item` (String, the raw ids), `line` (Int64, the line in the file, from 1) and, if the
            source has timestamps, `timestamp` (Int64 or Float64).
        true_categories: the latent category of each raw item id of generated data; None for real data.
        titles: the title of each raw item id, where the source has titles.
    """

    rows: pl.DataFrame
    true_categories: Mapping[str, int] | None = None
    titles: Mapping[str, str] | None = None

    @property
    def has_timestamps(self) -> bool:
        """Whether the source has timestamps."""
        return "timestamp" in self.rows.columns


def read_text(path: Path) -> str:
    """Reads a UTF-8 text file and drops a byte-order mark.

    Raises:
        UserError: if there is no such file, or it is empty, binary or not UTF-8.
    """
    require_file(path)
    content = path.read_bytes()
    if not content.strip():
        raise UserError(f"{path}: is empty; give a file with interactions")
    nul = content.find(b"\0")
    if nul >= 0:
        line = content.count(b"\n", 0, nul) + 1
        raise UserError(f"{path}, line {line}: holds a NUL byte, so it is not text; give the unpacked text file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: is not UTF-8 text; convert it, or unpack it first") from error


def read_lines(path: Path) -> pl.DataFrame:
    """Reads a text file's lines: columns `text` (String) and `line` (Int64, the line's number, from 1).

    Raises:
        UserError: as `read_text`.
    """
    text = pl.Series("text", read_text(path).splitlines(), dtype=pl.String)
    return pl.DataFrame({"text": text}).with_columns((pl.int_range(pl.len(), dtype=pl.Int64) + 1).alias("line"))


def require_file(path: Path) -> None:
    """Raises a `UserError` if a path does not exist or is a folder."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the file in it with data.path=FILE")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; give the right one with data.path=FILE")


def named_rows(
    table: pl.DataFrame, path: Path, *, user_column: str, item_column: str, time_column: str | None, first_line: int
) -> RawInteractions:
    """Checks a table with named columns and returns its interactions.

    Args:
        table: the table as read; the time column may be text.
        path: the file, for error messages.
        user_column: name of the column of users.
        item_column: name of the column of items.
        time_column: name of the column of timestamps; None if the rows are in time order.
        first_line: number of the first row's line in the file.

    Raises:
        UserError: if a column is missing, there is no row, an id is empty, or a timestamp is not a number.
    """
    for column in (user_column, item_column, time_column):
        if column is not None and column not in table.columns:
            raise UserError(
                f"{path}: has no column '{column}', but {', '.join(table.columns)}; name it with data.reader.…_column, "
                "or give the right separator"
            )
    columns = [
        pl.col(user_column).cast(pl.String).alias("user"),
        pl.col(item_column).cast(pl.String).alias("item"),
        (pl.int_range(pl.len(), dtype=pl.Int64) + first_line).alias("line"),
    ]
    if time_column is not None:
        columns.append(pl.col(time_column).alias("timestamp"))
    rows = table.select(columns)
    if rows.is_empty():
        raise UserError(f"{path}: has a header, but no interactions; give a file with interactions")
    for name, column in (("user", user_column), ("item", item_column)):
        bad = rows.filter(pl.col(name).is_null() | (pl.col(name).str.strip_chars() == ""))
        if len(bad):
            raise UserError(f"{path}, line {bad['line'][0]}: '{column}' is empty; fill it or remove the line")
    if time_column is not None:
        rows = rows.with_columns(numeric_time(rows, path, time_column))
    return RawInteractions(rows)


def numeric_time(rows: pl.DataFrame, path: Path, time_column: str) -> pl.Series:
    """Converts the timestamps to Int64 or Float64; dates become microseconds since 1970.

    Args:
        rows: with the columns `timestamp` and `line`.
        path: the file, for error messages.
        time_column: the column's name in the file, for error messages.

    Raises:
        UserError: for the first timestamp that is not a finite number.
    """
    time = rows["timestamp"]
    if time.dtype.is_temporal():
        time = time.cast(pl.Datetime("us")).cast(pl.Int64)
    if time.dtype == pl.String:
        stripped = time.str.strip_chars()
        whole = stripped.cast(pl.Int64, strict=False)
        time = whole if whole.null_count() == 0 else stripped.cast(pl.Float64, strict=False)
    if time.dtype.is_integer():
        time = time.cast(pl.Int64)
    elif time.dtype.is_float():
        time = time.cast(pl.Float64)
    else:
        raise UserError(f"{path}: '{time_column}' holds {time.dtype}, not numbers or dates; convert it")
    bad = time.is_null() if time.dtype == pl.Int64 else (time.is_null() | ~time.is_finite().fill_null(False))
    if bad.any():
        row = int(bad.arg_max() or 0)
        value = rows["timestamp"][row]
        raise UserError(f"{path}, line {rows['line'][row]}: '{time_column}' is {value!r}, not a number; correct it")
    return time.alias("timestamp")

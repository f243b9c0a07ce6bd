"""What every reader gives, and what every reader refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tslrec.errors import UserError


@dataclass(frozen=True)
class RawInteractions:
    """Interactions as the file has them, in file order.

    Attributes:
        rows: columns `user` and `item` (String), `line` (Int64, counted from 1 in the file) and, where the source has
            times, `timestamp` (Int64 or Float64).
        true_categories: the latent category of each raw item, where the data were generated.
    """

    rows: pl.DataFrame
    true_categories: Mapping[str, int] | None = None

    @property
    def has_timestamps(self) -> bool:
        return "timestamp" in self.rows.columns


def read_text(path: Path) -> str:
    """A text file's content, without a byte-order mark.

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


def require_file(path: Path) -> None:
    """Refuses what is no file."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the file in it with data.path=FILE")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; give the right one with data.path=FILE")


def named_rows(
    table: pl.DataFrame, path: Path, *, user_column: str, item_column: str, time_column: str | None, first_line: int
) -> RawInteractions:
    """Checks a table with named columns and gives its interactions.

    Args:
        table: as read; the time column may still be text.
        path: for messages.
        user_column: name of the users' column.
        item_column: name of the items' column.
        time_column: name of the times' column; None where the rows are in time order.
        first_line: the line of the first row.
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
    """The timestamps as whole or real numbers; dates become microseconds."""
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
        place = int(bad.arg_max() or 0)
        value = rows["timestamp"][place]
        raise UserError(f"{path}, line {rows['line'][place]}: '{time_column}' is {value!r}, not a number; correct it")
    return time.alias("timestamp")

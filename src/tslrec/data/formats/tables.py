"""CSV and Parquet files with named columns."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from tslrec.data.formats.base import RawInteractions, named_rows, read_text, require_file
from tslrec.system.errors import UserError


def read_csv(
    path: Path, *, user_column: str, item_column: str, time_column: str | None = None, separator: str = ","
) -> RawInteractions:
    """Reads CSV with a header line; all but the named columns are ignored.

    Args:
        path: the file.
        user_column: name of the column of users.
        item_column: name of the column of items.
        time_column: name of the column of timestamps; None if the rows are in time order.
        separator: the character between two fields.

    Raises:
        UserError: if a column is missing, a line has too many fields, or a time is not a number.
    """
    table = parse_separated(read_text(path), path, separator)
    return named_rows(
        table, path, user_column=user_column, item_column=item_column, time_column=time_column, first_line=2
    )


def read_parquet(path: Path, *, user_column: str, item_column: str, time_column: str | None = None) -> RawInteractions:
    """Reads Parquet; all but the named columns are ignored. Error messages give a row's number, from 1, as its line.

    Args:
        path: the file.
        user_column: name of the column of users.
        item_column: name of the column of items.
        time_column: name of the column of timestamps; None if the rows are in time order.

    Raises:
        UserError: if it is not Parquet, a column is missing, or a time is not a number.
    """
    require_file(path)
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: is not readable Parquet ({str(error).splitlines()[0]}); export it again") from error
    return named_rows(
        table, path, user_column=user_column, item_column=item_column, time_column=time_column, first_line=1
    )


def parse_separated(text: str, path: Path, separator: str) -> pl.DataFrame:
    """Parses text with a header line into columns of strings; a separator inside quotes is part of a field.

    Args:
        text: the file's content.
        path: the file, for error messages.
        separator: the character between two fields.

    Raises:
        UserError: if it cannot be parsed.
    """
    try:
        return pl.read_csv(io.BytesIO(text.encode()), separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        width = text.splitlines()[0].count(separator)
        wide = next((i for i, line in enumerate(text.splitlines(), 1) if line.count(separator) > width), None)
        where = f"{path}, line {wide}" if wide else str(path)
        raise UserError(
            f"{where}: is not a table separated by {separator!r} ({str(error).splitlines()[0]}); correct the line, or "
            "set data.reader.separator"
        ) from error

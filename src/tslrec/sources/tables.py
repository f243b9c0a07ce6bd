"""CSV and Parquet with named columns."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from tslrec.errors import UserError
from tslrec.sources.raw import RawInteractions, named_rows, read_text, require_file


def read_csv(
    path: Path, *, user_column: str, item_column: str, time_column: str | None = None, separator: str = ","
) -> RawInteractions:
    """Reads CSV with a header line.

    Raises:
        UserError: if a column is missing, a line has too many fields, or a time is not a number.
    """
    table = parse_separated(read_text(path), path, separator)
    return named_rows(
        table, path, user_column=user_column, item_column=item_column, time_column=time_column, first_line=2
    )


def read_parquet(path: Path, *, user_column: str, item_column: str, time_column: str | None = None) -> RawInteractions:
    """Reads Parquet; lines in messages are rows, counted from 1.

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
    """All columns as text; polars finds the fields, so that quoted separators are part of a field."""
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

"""CSV and Parquet files with a user, an item and perhaps a time per row."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from tslrec.data.formats.base import Duplicates, RawInteractions
from tslrec.data.formats.columns import Columns, Missing, Part, interactions_of
from tslrec.data.formats.content import packing_of, read_content, unpack
from tslrec.data.formats.parts import files_of
from tslrec.data.formats.quoting import quoting_of
from tslrec.data.formats.records import read_records
from tslrec.data.formats.separators import separator_of
from tslrec.data.formats.wording import brief, brief_list
from tslrec.system.errors import UserError


def read_csv(
    path: Path,
    *,
    user_column: str | int,
    item_column: str | int,
    time_column: str | int | None = None,
    separator: str = ",",
    quote: str | None = "auto",
    header: bool | None = None,
    columns: list[str] | None = None,
    rating_column: str | int | None = None,
    min_rating: float | None = None,
    missing: Missing = "refuse",
    duplicates: Duplicates = "refuse",
) -> RawInteractions:
    """Reads separated text; all but the named columns are ignored.

    Args:
        path: the file, compressed or not, or a folder of such files.
        user_column: the column of users, by name, or by number from 0.
        item_column: the column of items, likewise.
        time_column: the column of timestamps, numbers or ISO 8601, likewise; None if the rows are in time order.
        separator: what stands between two fields: a character, several, or a word such as `tab`.
        quote: the quote character, or `double`, `single`, `none`; `auto`: double quotes, but none where tabs or
            several characters separate.
        header: whether the first line names the columns; None: it does, unless columns are given by number or
            `columns` names them.
        columns: names of all columns of a file without a header.
        rating_column: the column of ratings, which is read for `min_rating` only.
        min_rating: rows with a lower rating are dropped.
        missing: `drop` drops rows without a user or an item.
        duplicates: `first` or `last` keeps one of the rows with the same user, item and time.

    Raises:
        UserError: if a column is missing, a line has too few or too many fields, an id is empty, or a time is neither a
            number nor a date.
    """
    roles = Columns(user_column, item_column, time_column, rating_column, min_rating, missing, duplicates)
    parts = [
        separated_part(file, roles, separator=separator, quote=quote, header=header, columns=columns)
        for file in files_of(path)
    ]
    return interactions_of(parts, roles, path)


def read_parquet(
    path: Path,
    *,
    user_column: str | int,
    item_column: str | int,
    time_column: str | int | None = None,
    rating_column: str | int | None = None,
    min_rating: float | None = None,
    missing: Missing = "refuse",
    duplicates: Duplicates = "refuse",
) -> RawInteractions:
    """Reads Parquet; all but the named columns are ignored. Error messages give a row's number, from 1, as its line.

    A row may be a user with a list of items, and with lists of times and ratings of the same length.

    Args:
        path: the file, or a folder of such files.
        user_column: the column of users, by name, or by number from 0.
        item_column: the column of items, likewise.
        time_column: the column of timestamps, likewise; None if the rows are in time order.
        rating_column: the column of ratings, which is read for `min_rating` only.
        min_rating: rows with a lower rating are dropped.
        missing: `drop` drops rows without a user or an item.
        duplicates: `first` or `last` keeps one of the rows with the same user, item and time.

    Raises:
        UserError: if it is not Parquet, a column is missing, or a time is neither a number nor a date.
    """
    roles = Columns(user_column, item_column, time_column, rating_column, min_rating, missing, duplicates)
    return interactions_of([parquet_part(file, roles) for file in files_of(path)], roles, path)


def separated_part(
    path: Path, roles: Columns, *, separator: str, quote: str | None, header: bool | None, columns: list[str] | None
) -> Part:
    """One file of separated text; see `read_csv`."""
    content = read_content(path)
    separator = separator_of(separator, content.data.lstrip().partition(b"\n")[0].decode())
    named = dict[str, str]()
    headless = False

    def choose(first: list[str], where: str) -> tuple[dict[str, int], bool]:
        nonlocal headless
        has_header = is_header(first, roles, header, columns, where)
        headless = not has_header
        names = first if columns is None else columns
        remedy = "; a file without a header needs data.reader.columns or columns by number" if has_header else ""
        indices = roles.indices(names, where, remedy)
        named.update(
            (role, names[index] if has_header or columns else f"column {index}") for role, index in indices.items()
        )
        return indices, has_header

    records = read_records(
        content, path, separator=separator, quoting=quoting_of(quote, separator), choose=choose, needed=roles.user
    )
    notes = content.notes
    if headless:
        notes += (f"No header: the first line, {brief_list(records.first or [], 60)}, is a row.",)
    return Part(path, records.table, named, {"blank lines": records.blank}, notes)


def is_header(first: list[str], roles: Columns, header: bool | None, columns: list[str] | None, where: str) -> bool:
    """Whether the first line names the columns.

    Raises:
        UserError: if the settings contradict the line or each other.
    """
    if columns is not None:
        if not all(isinstance(name, str) for name in columns):
            raise UserError(f"data.reader.columns={brief_list(columns)}: must be names; put numbers in quotes")
        if len(columns) != len(first):
            raise UserError(
                f"{where}: has {len(first)} columns ({brief_list(first, 60)}), but data.reader.columns names "
                f"{len(columns)}"
            )
        if header is None and [name.strip() for name in first] == list(columns):
            raise UserError(f"{where}: is a header with the names of data.reader.columns; leave that setting out")
        return bool(header)
    numbers = [column for column in roles.by_role.values() if isinstance(column, int)]
    if header is False and len(numbers) < len(roles.by_role):
        name = next(column for column in roles.by_role.values() if not isinstance(column, int))
        raise UserError(
            f"data.reader.header=false: column '{brief(name)}' has no name then; give columns by number, or "
            "data.reader.columns=[…]"
        )
    if header is not None:
        return header
    if numbers and first == [str(index) for index in range(len(first))]:
        raise UserError(f"{where}: is {brief_list(first, 40)}: a header or a row? Set data.reader.header=true or false")
    if numbers and len(numbers) < len(roles.by_role):
        name = next(column for column in roles.by_role.values() if not isinstance(column, int))
        if name not in [each.strip() for each in first]:
            raise UserError(
                f"{where}: has no column '{brief(name)}' ({brief_list(first, 70)}); give all columns by "
                "number if it has no header (time_column=null without times)"
            )
        return True
    return not numbers


def parquet_part(path: Path, roles: Columns) -> Part:
    """One Parquet file; see `read_parquet`."""
    try:
        with path.open("rb") as file:
            packing = packing_of(file.read(8))
        source: Path | io.BytesIO = path if packing is None else io.BytesIO(unpack(path.read_bytes(), path))
        names = list(pl.read_parquet_schema(source))
        if isinstance(source, io.BytesIO):
            source.seek(0)
        indices = roles.indices(names, str(path))
        wanted = list(dict.fromkeys(names[index] for index in indices.values()))
        table = pl.read_parquet(source, columns=wanted, hive_partitioning=False, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = brief(str(error).splitlines()[0], 80)
        raise UserError(f"{path}: is not readable Parquet ({reason}); export it again, or choose data=csv") from error
    table = table.select(pl.col(names[index]).alias(role) for role, index in indices.items())
    table = table.with_columns((pl.int_range(pl.len(), dtype=pl.Int64) + 1).alias("line"))
    named = {role: names[index] for role, index in indices.items()}
    if table["item"].dtype in (pl.List, pl.Array):
        return Part(path, *histories(table, named, path))
    return Part(path, table, named)


def histories(
    table: pl.DataFrame, named: dict[str, str], path: Path
) -> tuple[pl.DataFrame, dict[str, str], dict[str, int]]:
    """A row per interaction, from a table with a row per user and lists of items, times and ratings.

    Raises:
        UserError: if a row's lists have different lengths, or the times are no lists.
    """
    lists = [role for role in named if table[role].dtype in (pl.List, pl.Array)]
    table = table.with_columns(pl.col(role).cast(pl.List(table[role].dtype.inner)) for role in lists)  # type: ignore[attr-defined]
    if "timestamp" in named and "timestamp" not in lists:
        raise UserError(
            f"{path}: '{brief(named['item'])}' holds lists, but '{brief(named['timestamp'])}' does not; give a list of "
            "times, or data.reader.time_column=null if the items are in time order"
        )
    for role in lists:
        counts, items = table[role].list.len().fill_null(0), table["item"].list.len().fill_null(0)
        other = counts != items
        if other.any():
            row = int(other.arg_max() or 0)
            raise UserError(
                f"{path}, line {row + 1}: '{brief(named[role])}' has {counts[row]} entries, but "
                f"'{brief(named['item'])}' has {items[row]}; correct it"
            )
    empty = table["item"].list.len().fill_null(0) == 0
    return table.filter(~empty).explode(lists), named, {"users without items": int(empty.sum())}

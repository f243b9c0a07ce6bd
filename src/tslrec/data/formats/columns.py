"""Which columns of a table are users, items, times and ratings, and the interactions that follow from them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl

from tslrec.data.formats.base import Duplicates, RawInteractions, Reading
from tslrec.data.formats.times import converted
from tslrec.data.formats.wording import brief, brief_list
from tslrec.system.errors import UserError

Missing = Literal["refuse", "drop"]
"""What happens to rows without a user or an item."""
LONGEST_MISSING = 4
LIKE_MISSING = ("nan", "null", "none", "n/a", "<na>", "nat")
"""Texts that other programs write where a value is missing; they are read as ids, and the audit counts them."""


@dataclass(frozen=True)
class Columns:
    """Where the columns are, by name or by number from 0, and what is done with rows.

    Attributes:
        user: the column of users.
        item: the column of items.
        time: the column of timestamps; None if the rows are in time order.
        rating: the column of ratings; None if it is not read.
        min_rating: rows with a lower rating are dropped; None keeps all.
        missing: what happens to rows without a user or an item.
        duplicates: what happens to rows with the user, item and time of an earlier row.

    Raises:
        UserError: if they contradict each other.
    """

    user: str | int
    item: str | int
    time: str | int | None = None
    rating: str | int | None = None
    min_rating: float | None = None
    missing: Missing = "refuse"
    duplicates: Duplicates = "refuse"

    def __post_init__(self) -> None:
        if (self.rating is None) != (self.min_rating is None):
            raise UserError(
                "data.reader.rating_column and data.reader.min_rating belong together; set both, or neither"
            )
        if self.time is None and self.duplicates != "refuse":
            raise UserError(
                f"data.reader.duplicates={self.duplicates}: without times a duplicate cannot be told from a repeated "
                "interaction; set data.reader.time_column, or leave it out"
            )

    @property
    def by_role(self) -> dict[str, str | int]:
        """The columns that are read, by what they are."""
        roles = {"user": self.user, "item": self.item, "timestamp": self.time, "rating": self.rating}
        return {role: column for role, column in roles.items() if column is not None}

    def indices(self, names: Sequence[str], where: str, remedy: str = "") -> dict[str, int]:
        """The index of each column that is read, by what it is.

        Args:
            names: the names of the table's columns.
            where: the file, and the line of the names, for error messages.
            remedy: what else to do where a column is missing.

        Raises:
            UserError: if there is no such column, or two of that name.
        """
        return {role: index_of(column, role, names, where, remedy) for role, column in self.by_role.items()}


def setting_of(role: str) -> str:
    """The setting that names a column."""
    return f"data.reader.{'time' if role == 'timestamp' else role}_column"


def index_of(column: str | int, role: str, names: Sequence[str], where: str, remedy: str) -> int:
    """The index of a column that is given by its name or number."""
    if isinstance(column, int):
        if not 0 <= column < len(names):
            raise UserError(f"{where}: {setting_of(role)}={column}: columns are numbered from 0 to {len(names) - 1}")
        return column
    same = [index for index, name in enumerate(names) if name == column]
    same = same or [index for index, name in enumerate(names) if name.strip() == column]
    if len(same) > 1:
        raise UserError(f"{where}: has {len(same)} columns '{brief(column)}'; rename one of them")
    if same:
        return same[0]
    near = difflib.get_close_matches(column, names, n=1)
    meant = f"={brief(near[0])}" if near else ""
    without = " (null: rows are in time order)" if role == "timestamp" else ""
    raise UserError(
        f"{where}: has no column '{brief(column)}', but {brief_list(names, 70)}; set {setting_of(role)}{meant}{without}"
        f"{remedy}"
    )


@dataclass
class Part:
    """One file's rows before the checks.

    Attributes:
        path: the file.
        table: the columns user, item and, where they are read, timestamp and rating, as the file has them; and `line`.
        names: what the file calls its columns.
        dropped: lines that are not in the table, by the reason.
        notes: see `Reading`.
    """

    path: Path
    table: pl.DataFrame
    names: Mapping[str, str]
    dropped: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def interactions_of(parts: Sequence[Part], columns: Columns, path: Path) -> RawInteractions:
    """Checks the rows of one or several files and makes interactions of them.

    Args:
        parts: the files; their columns must have the same types.
        columns: what is done with rows.
        path: the file, or the folder of the parts.

    Raises:
        UserError: if there is no row, an id is missing, or a time or a rating is not a number.
    """
    several = len(parts) > 1 or parts[0].path != path
    tables, dropped, notes, warnings = [], dict[str, int](), list[str](), list[str]()
    for index, part in enumerate(parts):
        checked, without, remarks = checked_part(part, columns)
        tables.append(checked.with_columns(pl.lit(index, pl.UInt32).alias("part")) if several else checked)
        notes += [note for note in part.notes if note not in notes]
        warnings += remarks
        for reason, count in (*part.dropped.items(), *without.items()):
            if count:
                dropped[reason] = dropped.get(reason, 0) + count
    if len({str(table.schema.get("timestamp")) for table in tables}) > 1:
        types = brief_list(sorted({str(table.schema["timestamp"]) for table in tables}))
        raise UserError(f"{path}: its files have different types of '{columns.time}' ({types}); convert them to one")
    rows = pl.concat(tables) if len(tables) > 1 else tables[0]
    if rows.is_empty():
        why = f": {', '.join(f'{count:,} {reason}' for reason, count in dropped.items())}" if dropped else ""
        raise UserError(f"{path}: has no interactions{brief(why, 120)}; give a file with interactions")
    names = tuple(part.path.relative_to(path).as_posix() for part in parts) if several else ()
    raw = RawInteractions(rows, duplicates=columns.duplicates, parts=names)
    times = None
    if columns.time is not None:

        def place(row: int) -> str:
            return raw.place(str(path), rows.select("line", *(["part"] if several else [])).row(row, named=True))

        stamps, times = converted(rows["timestamp"], place, parts[0].names["timestamp"])
        rows = rows.with_columns(stamps.cast(pl.Int64) if stamps.dtype.is_integer() else stamps)
        if times.units and len(times.units) > 1:
            counts = " and ".join(f"{count:,} {unit}" for unit, count in times.units.items())
            warnings.append(
                f"The times mix units, which differ by factors of a thousand: {counts}. Their order is wrong."
            )
    return RawInteractions(
        rows, duplicates=columns.duplicates, parts=names, reading=Reading(dropped, tuple(notes), tuple(warnings), times)
    )


def checked_part(part: Part, columns: Columns) -> tuple[pl.DataFrame, dict[str, int], list[str]]:
    """The rows of a file with ids as text and without those that are dropped; counts of these; and warnings."""
    table, dropped = part.table, dict[str, int]()
    missing = pl.Series(values=[False], dtype=pl.Boolean).new_from_index(0, len(table))
    for role in ("user", "item"):
        ids = table[role]
        if ids.dtype.is_nested() or ids.dtype == pl.Object:
            raise UserError(f"{part.path}: '{part.names[role]}' holds {brief(ids.dtype)}, not ids; convert it to text")
        numbers = ids.dtype.is_numeric()
        gone = ids.is_null() | (ids.is_nan().fill_null(False) if ids.dtype.is_float() else False)
        if ids.dtype != pl.String:
            ids = text_of(ids, part, role)
            table = table.with_columns(ids)
        gone = gone | ids.is_null()
        if not numbers:
            gone = gone | (ids.str.strip_chars() == "").fill_null(True)
        if gone.any() and columns.missing == "refuse":
            line = table["line"][int(gone.arg_max() or 0)]
            count = int(gone.sum())
            more = f" (and in {count - 1:,} more)" if count > 1 else ""
            raise UserError(
                f"{part.path}, line {line}{more}: '{brief(part.names[role])}' is empty; fill it, remove the "
                "line, or set data.reader.missing=drop"
            )
        missing = missing | gone
    if missing.any():
        dropped["without a user or an item"] = int(missing.sum())
        table = table.filter(~missing)
    if "rating" in table.columns:
        low = ratings_of(table, part) < columns.min_rating
        dropped[f"rated below {columns.min_rating:g}"] = int(low.sum())
        table = table.filter(~low).drop("rating")
    return table, dropped, warnings_of_ids(table, part)


def text_of(ids: pl.Series, part: Part, role: str) -> pl.Series:
    """Ids of another type as text.

    Raises:
        UserError: if they are bytes that are not UTF-8.
    """
    try:
        return ids.cast(pl.String, strict=False)
    except pl.exceptions.PolarsError as error:
        raise UserError(
            f"{part.path}: '{brief(part.names[role])}' holds {brief(ids.dtype)} that is not UTF-8 text; convert it"
        ) from error


def ratings_of(table: pl.DataFrame, part: Part) -> pl.Series:
    """The ratings as Float64.

    Raises:
        UserError: for the first one that is not a number.
    """
    given = table["rating"]
    if given.dtype != pl.String and not given.dtype.is_numeric():
        raise UserError(
            f"{part.path}: '{brief(part.names['rating'])}' holds {brief(given.dtype)}, not numbers; convert it"
        )
    text = given.str.strip_chars() if given.dtype == pl.String else given
    ratings = text.cast(pl.Float64, strict=False)
    bad = ratings.is_null() | ratings.is_nan()
    if bad.any():
        row = int(bad.arg_max() or 0)
        raise UserError(
            f"{part.path}, line {table['line'][row]}: '{brief(part.names['rating'])}' is '{brief(given[row])}', not a "
            "number; correct it"
        )
    return ratings


def warnings_of_ids(table: pl.DataFrame, part: Part) -> list[str]:
    """Ids that read like a missing value: counted, for they join strangers' histories."""
    warnings = []
    for role in ("user", "item"):
        text = table[role]
        short = text.filter(text.str.len_bytes() <= LONGEST_MISSING).str.to_lowercase()
        short = short.filter(short.is_in(LIKE_MISSING))
        for word in LIKE_MISSING if len(short) else ():
            count = int((short == word).sum())
            if count:
                warnings.append(f"The {role} is '{word}' in {count:,} row(s), which reads like a missing value.")
    return warnings

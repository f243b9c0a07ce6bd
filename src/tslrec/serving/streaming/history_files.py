"""Files of histories: Parquet, CSV or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from tslrec.serving.streaming.sources import HeldHistories, HistorySource, ListFile
from tslrec.system.errors import UserError
from tslrec.system.files import describe

LINES_AT_A_TIME = 50_000
"""JSON lines that are held as Python objects at a time."""

SUFFIXES = (".parquet", ".csv", ".jsonl")


def open_histories(path: Path) -> HistorySource:
    """Opens a file of histories.

    Args:
        path: `.parquet` with the columns `user` and `items` (lists; read by row groups) or `user` and `item` (each
            user's rows in time order); `.csv` with the columns `user` and `item`; `.jsonl` with an object
            `{"user": …, "items": […]}` a line. All but the first form are read whole. Text files give users as text.

    Raises:
        UserError: if the file is missing, has another form, or holds no user.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: name a file that ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        source = open_known(path)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not readable as {path.suffix[1:]} ({reason}); write it again") from error
    if not source.num_users:
        raise UserError(f"{path}: holds no history; a row for each user or interaction is needed")
    return source


def open_known(path: Path) -> HistorySource:
    """As `open_histories`, of an existing file with a known ending."""
    if path.suffix == ".jsonl":
        return HeldHistories(read_json_lines(path), describe(path))
    if path.suffix == ".csv":
        return HeldHistories(by_user(pl.read_csv(path, infer_schema=False, glob=False), path), describe(path))
    columns = pl.scan_parquet(path, glob=False).collect_schema()
    if "user" in columns and "items" in columns:
        if not isinstance(columns["items"], pl.List | pl.Array):
            raise UserError(f"{path}: the column items holds {columns['items']}, not lists of raw ids")
        return ListFile(path)
    return HeldHistories(by_user(pl.read_parquet(path, glob=False), path), describe(path))


def by_user(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Rows `user`, `item` as one row per user with the column `items`, in the order of the users' first rows.

    Raises:
        UserError: if a column is missing.
    """
    if not {"user", "item"} <= set(rows.columns):
        needed = "user and items (lists) or user and item" if path.suffix == ".parquet" else "user and item"
        raise UserError(f"{path}: has the columns {', '.join(rows.columns)}; name them {needed}")
    return rows.group_by("user", maintain_order=True).agg(pl.col("item").alias("items"))


def read_json_lines(path: Path) -> pl.DataFrame:
    """Reads an object with `user` and `items` from each line; empty lines are ignored.

    Returns:
        Columns `user` (String) and `items` (lists of String).

    Raises:
        UserError: for the first line that is something else.
    """
    schema = pl.Schema({"user": pl.String(), "items": pl.List(pl.String())})
    users: list[str] = []
    items: list[list[str]] = []
    frames = [pl.DataFrame(schema=schema)]
    for user, history in json_lines(path):
        users.append(user)
        items.append(history)
        if len(users) == LINES_AT_A_TIME:
            frames.append(pl.DataFrame({"user": users, "items": items}, schema=schema))
            users, items = [], []
    frames.append(pl.DataFrame({"user": users, "items": items}, schema=schema))
    return pl.concat(frames)


def json_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The user and the items of each line, as text."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                given = json.loads(line)
                user, items = given["user"], given["items"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UserError(
                    f'{path}: line {number}: no object with user and items ({error}); write {{"user": …, "items": […]}}'
                ) from error
            if not is_id(user) or not isinstance(items, list) or not all(is_id(each) for each in items):
                raise UserError(f"{path}: line {number}: user must be an id and items a list of ids (text or integers)")
            yield str(user), [str(each) for each in items]


def is_id(value: Any) -> bool:
    """Whether a value of JSON can be a raw id: an integer, or text that is valid Unicode."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= each <= "\udfff" for each in value)
    return isinstance(value, int) and not isinstance(value, bool)

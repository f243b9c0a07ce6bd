"""Turns a raw file into `Interactions`: filters, sorts and numbers the rows, and refuses invalid data sets.

Shapes: N rows of the file.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from hydra.utils import get_method
from numpy.typing import NDArray

from tslrec.data.download import locate
from tslrec.data.formats.base import RawInteractions
from tslrec.data.formats.wording import brief
from tslrec.data.interactions import MIN_EVALUATED_LENGTH, IdMap, Interactions
from tslrec.settings.data import DataConfig
from tslrec.system.errors import UserError

logger = logging.getLogger(__name__)


def ingest(data: DataConfig, cache: Path) -> Interactions:
    """Reads a data set as its configuration says.

    After the filter, users and items are numbered in the order of their first row in the file. If there are timestamps,
    each user's interactions are sorted by them, and ties keep file order; otherwise file order is time order.

    Args:
        data: the data set's configuration.
        cache: folder of downloaded files.

    Raises:
        UserError: if the file or the configuration is invalid, or leave-one-out could evaluate no user.
    """
    return ingest_counted(data, cache)[0]


def ingest_counted(data: DataConfig, cache: Path) -> tuple[Interactions, dict[str, Any]]:
    """As `ingest`, and counts the rows.

    Returns:
        The data set; and `rows` (interactions before the k-core filter), `dropped` (rows and lines that are not among
        them, by the reason), `filtered` (rows that the k-core filter drops) and `notes`.

    Raises:
        UserError: as `ingest`.
    """
    raw, where = read_raw(data, cache)
    if raw.duplicates != "refuse":
        raw = without_duplicates(raw)
    for warning in raw.reading.warnings:
        logger.warning("%s: %s", where, warning)
    rows, reading = len(raw.rows), raw.reading
    encoded = encode(raw)
    if raw.duplicates == "refuse" and has_duplicates(encoded):
        refuse_duplicates(raw, where)
    del raw  # With millions of rows, the raw ids' text takes most of the memory.
    interactions = filter_and_number(encoded, data, where)
    return interactions, {
        "rows": rows,
        "dropped": dict(reading.dropped),
        "filtered": rows - interactions.num_interactions,
        "notes": [*reading.notes, *reading.warnings],
    }


def read_raw(data: DataConfig, cache: Path) -> tuple[RawInteractions, str]:
    """Runs the configured reader.

    Returns:
        The interactions as the file has them, and the source's name for error messages (the file, or `data=NAME`).

    Raises:
        UserError: if there is no such file, or the reader refuses it.
    """
    reader = get_method(data.reader["_target_"])
    options = {key: value for key, value in data.reader.items() if key not in ("_target_", "name")}
    where = f"data={data.name}"
    if "path" in inspect.signature(reader).parameters:
        path = locate(data, cache)
        options["path"] = path
        where = str(path)
    return cast(RawInteractions, reader(**options)), where


def count_duplicates(rows: pl.DataFrame) -> int:
    """Number of rows with the same user, item and timestamp as an earlier row."""
    return len(rows) - rows.select("user", "item", "timestamp").n_unique()


def without_duplicates(raw: RawInteractions) -> RawInteractions:
    """Keeps the first or the last of the rows with the same user, item and timestamp, as the reader's setting says.

    The same user and item at another time is a repeated interaction and is kept; so is everything where there are no
    timestamps, and where duplicates are to be refused.
    """
    if not raw.has_timestamps or raw.duplicates == "refuse":
        return raw
    rows = raw.rows.unique(["user", "item", "timestamp"], keep=raw.duplicates, maintain_order=True)
    count = len(raw.rows) - len(rows)
    if not count:
        return raw
    dropped = {**raw.reading.dropped, f"duplicates (the {raw.duplicates} one is kept)": count}
    return replace(raw, rows=rows, reading=replace(raw.reading, dropped=dropped))


def refuse_duplicates(raw: RawInteractions, where: str) -> None:
    """Raises a `UserError` if two rows have the same user, item and timestamp, which is an error in the data."""
    rows = raw.rows
    same = rows.filter(pl.struct("user", "item", "timestamp").is_duplicated())
    if len(same):
        first = same.row(0, named=True)
        lines = same.filter(
            (pl.col("user") == first["user"])
            & (pl.col("item") == first["item"])
            & (pl.col("timestamp") == first["timestamp"])
        )
        before = f"in line {lines['line'][0]}" if not raw.parts else f"in {raw.place('', lines.row(0, named=True))[1:]}"
        raise UserError(
            f"{raw.place(where, lines.row(1, named=True))}: user {brief(first['user'], 24)}, item "
            f"{brief(first['item'], 24)} at time {first['timestamp']} is {before} already; {count_duplicates(rows):,} "
            "rows repeat an earlier one: data.reader.duplicates=first keeps the first"
        )


@dataclass(frozen=True)
class EncodedRows:
    """Raw interactions with integer codes instead of raw ids, so that filtering and sorting is arithmetic on arrays.

    Attributes:
        users_N: int32, the index of each row's user in `raw_users`.
        items_N: int32, the index of each row's item in `raw_items`.
        raw_users: distinct raw user ids in the order of their first row.
        raw_items: distinct raw item ids in the order of their first row.
        timestamps_N: timestamps of the rows; None if the source has none.
        true_categories: see `RawInteractions`.
        titles: see `RawInteractions`.
    """

    users_N: NDArray[np.int32]
    items_N: NDArray[np.int32]
    raw_users: pl.Series
    raw_items: pl.Series
    timestamps_N: NDArray[np.float64] | NDArray[np.int64] | None
    true_categories: Mapping[str, int] | None
    titles: Mapping[str, str] | None


def encode(raw: RawInteractions) -> EncodedRows:
    """Replaces the raw ids by integer codes."""
    users_N, raw_users = codes_of(raw.rows["user"])
    items_N, raw_items = codes_of(raw.rows["item"])
    timestamps_N = raw.rows["timestamp"].to_numpy() if raw.has_timestamps else None
    return EncodedRows(users_N, items_N, raw_users, raw_items, timestamps_N, raw.true_categories, raw.titles)


def codes_of(raw_ids: pl.Series) -> tuple[NDArray[np.int32], pl.Series]:
    """The code of each row's id, and the distinct ids in the order of their first row; a code is an index into them."""
    distinct = raw_ids.unique(maintain_order=True)
    return raw_ids.replace_strict(distinct, pl.Series(range(len(distinct)), dtype=pl.Int32)).to_numpy(), distinct


def has_duplicates(encoded: EncodedRows) -> bool:
    """Whether two rows have the same user, item and timestamp; without timestamps that cannot be told."""
    if encoded.timestamps_N is None:
        return False
    pairs_N = encoded.users_N.astype(np.int64) * len(encoded.raw_items) + encoded.items_N
    ordered_N = np.sort(pairs_N)
    repeated = ordered_N[1:][ordered_N[1:] == ordered_N[:-1]]
    if not len(repeated):
        return False
    # Only pairs that occur again can have the same time twice; in most data sets these are few.
    among_N = np.isin(pairs_N, repeated)
    rows = pl.DataFrame({"pair": pairs_N[among_N], "timestamp": encoded.timestamps_N[among_N]})
    return not bool(rows.is_unique().all())


def filter_and_number(encoded: EncodedRows, data: DataConfig, where: str) -> Interactions:
    """Applies the k-core filter and builds the data set.

    Args:
        encoded: all rows.
        data: the filter's bounds and the data set's name.
        where: the source's name for error messages.

    Raises:
        UserError: if the filter leaves no row, or leave-one-out could evaluate no user.
    """
    kept = k_core(encoded, data.min_user_interactions, data.min_item_interactions)
    if not len(kept):
        raise UserError(
            f"{where}: no interaction is left after data.min_user_interactions={data.min_user_interactions} and "
            f"data.min_item_interactions={data.min_item_interactions}; lower them"
        )
    interactions = build_interactions(encoded, kept, data.name)
    if not len(interactions.evaluated_users):
        raise UserError(
            f"{where}: no user has {MIN_EVALUATED_LENGTH} interactions, so none can be evaluated (one item each to "
            "train, validate and test); give longer histories"
        )
    return interactions


def k_core(encoded: EncodedRows, min_user: int, min_item: int) -> NDArray[np.int64]:
    """Row numbers that the k-core filter keeps.

    Users and items with too few interactions are dropped repeatedly, until all that are left have enough.

    Args:
        encoded: all rows.
        min_user: interactions that each user must have.
        min_item: interactions that each item must have.
    """
    kept = np.arange(len(encoded.users_N))
    while True:
        users, items = encoded.users_N[kept], encoded.items_N[kept]
        enough = (np.bincount(users)[users] >= min_user) & (np.bincount(items)[items] >= min_item)
        if enough.all():
            return kept
        kept = kept[enough]


def build_interactions(encoded: EncodedRows, kept: NDArray[np.int64], name: str) -> Interactions:
    """Numbers the users and items of the kept rows by their first row, and sorts each user's items by time.

    Args:
        encoded: all rows.
        kept: the row numbers to keep, ascending.
        name: the data set's name.
    """
    users, present_users = renumber(encoded.users_N[kept], len(encoded.raw_users))
    items, present_items = renumber(encoded.items_N[kept], len(encoded.raw_items))
    raw_items = encoded.raw_items.gather(present_items)
    timestamps = None if encoded.timestamps_N is None else encoded.timestamps_N[kept]
    # Both sorts are stable: ties keep file order.
    order = np.argsort(users, kind="stable") if timestamps is None else np.lexsort((timestamps, users))
    true_categories = None
    if encoded.true_categories is not None:
        true_categories = np.array([-1, *(encoded.true_categories[item] for item in raw_items)], dtype=np.int64)
    return Interactions(
        name=name,
        items=items[order] + np.int32(1),
        offsets=np.concatenate([[0], np.cumsum(np.bincount(users))]).astype(np.int64),
        ids=IdMap(tuple(encoded.raw_users.gather(present_users)), ("", *raw_items)),
        timestamps=None if timestamps is None else timestamps[order],
        true_categories=true_categories,
        titles=None if encoded.titles is None else ("", *(encoded.titles[item] for item in raw_items)),
    )


def renumber(codes_N: NDArray[np.int32], count: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Numbers codes from 0 in the order of their first row.

    Args:
        codes_N: the code of each row, below `count`.
        count: number of codes, of which some may occur in no row.

    Returns:
        The new number of each row, and the code that each new number stands for.
    """
    rows = len(codes_N)
    first = np.full(count, rows)
    # Of several writes to the same index the last one stays; written in reverse order, that is the first row.
    first[codes_N[::-1]] = np.arange(rows - 1, -1, -1)
    by_first_row = np.argsort(first, kind="stable")
    present = by_first_row[: np.count_nonzero(first < rows)]
    numbers = np.zeros(count, dtype=np.int32)
    numbers[present] = np.arange(len(present), dtype=np.int32)
    return numbers[codes_N], present

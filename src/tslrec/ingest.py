"""From a raw file to `Interactions`: filter, order, number; what cannot be evaluated or trusted is refused.

Shapes: N rows of the file.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl
from hydra.utils import get_method
from numpy.typing import NDArray

from tslrec.config import DataConfig
from tslrec.errors import UserError
from tslrec.interactions import MIN_EVALUATED_LENGTH, IdMap, Interactions
from tslrec.sources.download import locate
from tslrec.sources.raw import RawInteractions


def ingest(data: DataConfig, cache: Path) -> Interactions:
    """Reads a data set as its configuration says.

    Users and items are numbered in the order in which the file first names them, after the filter. Where there are
    timestamps, a user's interactions are sorted by them, ties keeping file order; without, file order is time order.

    Raises:
        UserError: for what a person can put right in the file or the configuration.
    """
    raw, where = read_raw(data, cache)
    if raw.has_timestamps:
        refuse_duplicates(raw.rows, where)
    coded = encode(raw)
    del raw  # Of millions of rows the text is the largest part.
    return filter_and_number(coded, data, where)


def read_raw(data: DataConfig, cache: Path) -> tuple[RawInteractions, str]:
    """The interactions as the file has them, and what messages call their place."""
    reader = get_method(data.reader["_target_"])
    options = {key: value for key, value in data.reader.items() if key not in ("_target_", "name")}
    where = f"data={data.name}"
    if "path" in inspect.signature(reader).parameters:
        path = locate(data, cache)
        options["path"] = path
        where = str(path)
    return cast(RawInteractions, reader(**options)), where


def count_duplicates(rows: pl.DataFrame) -> int:
    """How many rows have the user, item and timestamp of an earlier row."""
    return len(rows) - rows.select("user", "item", "timestamp").n_unique()


def refuse_duplicates(rows: pl.DataFrame, where: str) -> None:
    """The same user, item and timestamp twice is a fault of the data; the same user and item at another time is not."""
    same = rows.filter(pl.struct("user", "item", "timestamp").is_duplicated())
    if len(same):
        first = same.row(0, named=True)
        lines = same.filter(
            (pl.col("user") == first["user"])
            & (pl.col("item") == first["item"])
            & (pl.col("timestamp") == first["timestamp"])
        )["line"]
        raise UserError(
            f"{where}, line {lines[1]}: user {first['user']}, item {first['item']} at time {first['timestamp']} stands "
            f"at line {lines[0]} already; remove one of them"
        )


@dataclass(frozen=True)
class Coded:
    """Raw interactions with numbers for raw ids: all that follows is arithmetic on arrays, however many rows there are.

    Attributes:
        users_N: int32, the place of each row's user in `raw_users`.
        items_N: int32, the place of each row's item in `raw_items`.
        raw_users: distinct raw ids in the order of their first row.
        raw_items: as `raw_users`.
        timestamps_N: None where the source has none.
        true_categories: see `RawInteractions`.
    """

    users_N: NDArray[np.int32]
    items_N: NDArray[np.int32]
    raw_users: pl.Series
    raw_items: pl.Series
    timestamps_N: NDArray[np.float64] | NDArray[np.int64] | None
    true_categories: Mapping[str, int] | None


def encode(raw: RawInteractions) -> Coded:
    """Numbers for raw ids."""
    users_N, raw_users = places(raw.rows["user"])
    items_N, raw_items = places(raw.rows["item"])
    timestamps_N = raw.rows["timestamp"].to_numpy() if raw.has_timestamps else None
    return Coded(users_N, items_N, raw_users, raw_items, timestamps_N, raw.true_categories)


def places(raw_ids: pl.Series) -> tuple[NDArray[np.int32], pl.Series]:
    """Each row's place among the distinct ids, and these in the order of their first row."""
    distinct = raw_ids.unique(maintain_order=True)
    return raw_ids.replace_strict(distinct, pl.Series(range(len(distinct)), dtype=pl.Int32)).to_numpy(), distinct


def filter_and_number(coded: Coded, data: DataConfig, where: str) -> Interactions:
    """The data set that is left by the filter; one that leave-one-out cannot evaluate is refused."""
    kept = k_core(coded, data.min_user_interactions, data.min_item_interactions)
    if not len(kept):
        raise UserError(
            f"{where}: no interaction is left by data.min_user_interactions={data.min_user_interactions} and "
            f"data.min_item_interactions={data.min_item_interactions}; lower them"
        )
    interactions = number(coded, kept, data.name)
    if not len(interactions.evaluated_users):
        raise UserError(
            f"{where}: no user has {MIN_EVALUATED_LENGTH} interactions, so none can be evaluated (one item each to "
            "train, validate and test); give longer histories"
        )
    return interactions


def k_core(coded: Coded, min_user: int, min_item: int) -> NDArray[np.int64]:
    """The rows that are left once users and items with too few interactions are dropped until all have enough."""
    kept = np.arange(len(coded.users_N))
    while True:
        users, items = coded.users_N[kept], coded.items_N[kept]
        enough = (np.bincount(users)[users] >= min_user) & (np.bincount(items)[items] >= min_item)
        if enough.all():
            return kept
        kept = kept[enough]


def number(coded: Coded, kept: NDArray[np.int64], name: str) -> Interactions:
    """Numbers the users and items of the kept rows by first appearance, and puts each user's items in time order."""
    users, present_users = renumbered(coded.users_N[kept], len(coded.raw_users))
    items, present_items = renumbered(coded.items_N[kept], len(coded.raw_items))
    raw_items = coded.raw_items.gather(present_items)
    timestamps = None if coded.timestamps_N is None else coded.timestamps_N[kept]
    # Both sorts are stable: ties keep file order.
    order = np.argsort(users, kind="stable") if timestamps is None else np.lexsort((timestamps, users))
    true_categories = None
    if coded.true_categories is not None:
        true_categories = np.array([-1, *(coded.true_categories[item] for item in raw_items)], dtype=np.int64)
    return Interactions(
        name=name,
        items=items[order] + np.int32(1),
        offsets=np.concatenate([[0], np.cumsum(np.bincount(users))]).astype(np.int64),
        ids=IdMap(tuple(coded.raw_users.gather(present_users)), ("", *raw_items)),
        timestamps=None if timestamps is None else timestamps[order],
        true_categories=true_categories,
    )


def renumbered(codes_N: NDArray[np.int32], count: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Codes below `count` as numbers from 0 in the order of their first row, and the code behind each number."""
    rows = len(codes_N)
    first = np.full(count, rows)
    # Of several writes to one place the last one stays: from behind, that is the first row.
    first[codes_N[::-1]] = np.arange(rows - 1, -1, -1)
    by_first_row = np.argsort(first, kind="stable")
    present = by_first_row[: np.count_nonzero(first < rows)]
    numbers = np.zeros(count, dtype=np.int32)
    numbers[present] = np.arange(len(present), dtype=np.int32)
    return numbers[codes_N], present

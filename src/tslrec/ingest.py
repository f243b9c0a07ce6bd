"""From a raw file to `Interactions`: filter, order, number; what cannot be evaluated or trusted is refused."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl
from hydra.utils import get_method

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
    return filter_and_number(raw, data, where)


def read_raw(data: DataConfig, cache: Path) -> tuple[RawInteractions, str]:
    """The interactions as the file has them, and what messages call their place."""
    reader = get_method(data.reader["_target_"])
    options = {key: value for key, value in data.reader.items() if key != "_target_"}
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


def filter_and_number(raw: RawInteractions, data: DataConfig, where: str) -> Interactions:
    """The data set that is left by the filter; one that leave-one-out cannot evaluate is refused."""
    rows = k_core(raw.rows, data.min_user_interactions, data.min_item_interactions)
    if rows.is_empty():
        raise UserError(
            f"{where}: no interaction is left by data.min_user_interactions={data.min_user_interactions} and "
            f"data.min_item_interactions={data.min_item_interactions}; lower them"
        )
    interactions = number(RawInteractions(rows, raw.true_categories), data.name)
    if not len(interactions.evaluated_users):
        raise UserError(
            f"{where}: no user has {MIN_EVALUATED_LENGTH} interactions, so none can be evaluated (one item each to "
            "train, validate and test); give longer histories"
        )
    return interactions


def k_core(rows: pl.DataFrame, min_user: int, min_item: int) -> pl.DataFrame:
    """Drops users and items with too few interactions until all that are left have enough."""
    while True:
        kept = rows.filter((pl.len().over("user") >= min_user) & (pl.len().over("item") >= min_item))
        if len(kept) == len(rows):
            return rows
        rows = kept


def number(raw: RawInteractions, name: str) -> Interactions:
    """Numbers users and items by first appearance, and puts each user's items in time order."""
    users = raw.rows["user"].unique(maintain_order=True)
    items = raw.rows["item"].unique(maintain_order=True)
    by = ["user_id", "timestamp"] if raw.has_timestamps else ["user_id"]
    rows = (
        raw.rows.with_columns(
            pl.col("user").replace_strict(users, pl.Series(range(len(users)), dtype=pl.Int64)).alias("user_id"),
            pl.col("item").replace_strict(items, pl.Series(range(1, len(items) + 1), dtype=pl.Int32)).alias("item_id"),
        )
    ).sort(by, maintain_order=True)
    counts = np.bincount(rows["user_id"].to_numpy(), minlength=len(users))
    true_categories = None
    if raw.true_categories is not None:
        true_categories = np.array([-1, *(raw.true_categories[item] for item in items)], dtype=np.int64)
    return Interactions(
        name=name,
        items=rows["item_id"].to_numpy().astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        ids=IdMap(tuple(users), ("", *items)),
        timestamps=rows["timestamp"].to_numpy().copy() if raw.has_timestamps else None,
        true_categories=true_categories,
    )

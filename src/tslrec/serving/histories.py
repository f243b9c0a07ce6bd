"""Histories as callers give them (lists, mappings, frames, Parquet) as arrays of item numbers.

Shapes: U users, N items of all histories, B users of a batch, L positions, S (user, item) pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tslrec.serving.catalogue import UNKNOWN, Catalogue, as_texts
from tslrec.serving.engine import Batch, Ids
from tslrec.system.errors import UserError

UNKNOWN_ITEMS = ("drop", "refuse")
"""What becomes of items of a history that the catalogue lacks; see `encode`."""


@dataclass(frozen=True)
class Histories:
    """Item numbers of users, user after user, oldest first.

    Attributes:
        users: the label of each user, `[U]`: as a frame has it, or its position in a list.
        items: int64 `[N]`, numbers from 1.
        offsets: int64 `[U + 1]`; the items of user u are `items[offsets[u]:offsets[u + 1]]`. A history may be empty.
        unknown: number of items that the catalogue lacks and that were dropped.
        rows: int64 `[U]`, see `Batch.users_B`.
    """

    users: pl.Series
    items: Ids
    offsets: Ids
    unknown: int = 0
    rows: Ids | None = None

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> Ids:
        """Number of items of each user, `[U]`."""
        return np.diff(self.offsets)

    def batches(self, max_len: int, batch_size: int, *, filter_seen: bool) -> Iterator[tuple[Ids, Batch]]:
        """Batches of the users with one item or more, sorted by length as an evaluation sorts them.

        Args:
            max_len: items of a history that the recommender reads: the last ones.
            batch_size: users per batch.
            filter_seen: whether the items of the whole history must not be recommended.

        Yields:
            The users' positions `[B]`, and the batch.
        """
        lengths_U = self.lengths
        users = np.flatnonzero(lengths_U > 0)
        users = users[np.argsort(lengths_U[users], kind="stable")]
        for begin in range(0, len(users), batch_size):
            users_B = users[begin : begin + batch_size]
            yield users_B, self.batch(users_B, max_len, filter_seen=filter_seen)

    def batch(self, users_B: Ids, max_len: int, *, filter_seen: bool) -> Batch:
        """The batch of some users, each with one item or more; the arguments are those of `batches`."""
        begins_B, ends_B = self.offsets[users_B], self.offsets[users_B + 1]
        starts_B = np.maximum(begins_B, ends_B - max_len)
        lengths_B = ends_B - starts_B
        column_L = np.arange(int(lengths_B.max()))
        inside_BL = column_L < lengths_B[:, None]
        items_BL = np.where(inside_BL, self.items[np.where(inside_BL, starts_B[:, None] + column_L, 0)], 0)
        rows_S, items_S = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        if filter_seen:
            counts_B = ends_B - begins_B
            rows_S = np.repeat(np.arange(len(users_B)), counts_B)
            within = np.arange(len(rows_S)) - np.repeat(np.cumsum(counts_B) - counts_B, counts_B)
            items_S = self.items[within + np.repeat(begins_B, counts_B)]
        return Batch(items_BL, lengths_B, rows_S, items_S, None if self.rows is None else self.rows[users_B])


HistoriesLike = Histories | Sequence[Sequence[Any]] | Mapping[Any, Sequence[Any]] | pl.DataFrame | str | Path | Any
"""What callers may give: see `encode`."""


def encode(given: HistoriesLike, catalogue: Catalogue, *, unknown_items: str) -> Histories:
    """Turns histories of raw ids into item numbers.

    Args:
        given: a list of lists of raw ids, oldest first (users are then numbered from 0); a mapping from user to such a
            list; a polars or pandas frame, or a Parquet file, with the columns `user` and `items` (one row per user,
            a list) or `user` and `item` (one row per interaction, each user's in time order).
        catalogue: the recommender's.
        unknown_items: `drop` leaves out items that the catalogue lacks; `refuse` refuses them.

    Raises:
        UserError: if the histories are of another form, or an item is unknown and that is refused.
    """
    if isinstance(given, Histories):
        return given
    if isinstance(given, str | Path):
        given = read_histories(Path(given))
    if isinstance(given, pl.DataFrame):
        return of_frame(given, catalogue, unknown_items=unknown_items)
    if hasattr(given, "columns") and hasattr(given, "to_dict"):
        return of_pandas(given, catalogue, unknown_items=unknown_items)
    if isinstance(given, Mapping):
        return of_lists(list(given.values()), labels_of(list(given)), catalogue, unknown_items=unknown_items)
    if isinstance(given, Sequence):
        users = pl.Series(range(len(given)), dtype=pl.Int64)
        return of_lists(given, users, catalogue, unknown_items=unknown_items)
    raise UserError(f"histories: {type(given).__name__}; give lists of raw ids, a frame or a Parquet file")


def read_histories(path: Path) -> pl.DataFrame:
    """Reads a Parquet file of histories.

    Raises:
        UserError: if there is no such file, or it is not Parquet.
    """
    try:
        return pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: is not readable Parquet ({str(error).splitlines()[0]}); write it again") from error


def of_pandas(frame: Any, catalogue: Catalogue, *, unknown_items: str) -> Histories:
    """Histories from a pandas frame, without pyarrow: see `encode`."""
    require_columns([str(name) for name in frame.columns])
    users = labels_of(frame["user"].tolist())
    if "items" in frame.columns:
        lists = [[] if missing(each) else each for each in frame["items"].tolist()]
        return of_lists(lists, users, catalogue, unknown_items=unknown_items)
    rows = pl.DataFrame({"user": users, "item": labels_of(frame["item"].tolist())})
    return of_frame(rows, catalogue, unknown_items=unknown_items)


def require_columns(names: Sequence[str]) -> None:
    """Refuses a frame without the columns of histories.

    Raises:
        UserError: with the columns that it has.
    """
    if "user" not in names or not {"item", "items"} & set(names):
        raise UserError(
            f"histories: has the columns {', '.join(names)}; name them user and items (lists) or user and item"
        )


def labels_of(values: list[Any]) -> pl.Series:
    """Users or raw ids as a series; text and integers together become text, and a missing value is null."""
    try:
        return pl.Series([None if missing(each) else each for each in values])
    except TypeError:
        return as_texts(values, "histories")


def missing(value: Any) -> bool:
    """Whether a value is null, or NaN as pandas writes it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def of_lists(
    lists: Sequence[Sequence[Any]], users: pl.Series, catalogue: Catalogue, *, unknown_items: str
) -> Histories:
    """Histories from a list of raw ids per user."""
    for position, each in enumerate(lists):
        if isinstance(each, str) or not isinstance(each, Sequence | np.ndarray | pl.Series):
            raise UserError(f"histories[{position}]: {each!r} is no list of raw ids; give a list of lists")
    flat = [raw_id for each in lists for raw_id in each]
    counts = np.array([len(each) for each in lists], dtype=np.int64)
    return of_flat(as_texts(flat, "histories"), counts, users, catalogue, unknown_items=unknown_items)


def of_frame(frame: pl.DataFrame, catalogue: Catalogue, *, unknown_items: str) -> Histories:
    """Histories from a frame: see `encode`."""
    require_columns(frame.columns)
    if "items" in frame.columns:
        lists = frame["items"]
        if isinstance(lists.dtype, pl.Array):
            lists = lists.arr.to_list()
        if not isinstance(lists.dtype, pl.List):
            raise UserError(f"histories: the column items holds {lists.dtype}, not lists of raw ids")
        counts = lists.list.len().fill_null(0).cast(pl.Int64).to_numpy()
        flat = lists.filter(pl.Series(counts > 0)).explode()
        texts = as_texts(flat, "histories")
        return of_flat(texts, counts, frame["user"], catalogue, unknown_items=unknown_items)
    grouped = frame.group_by("user", maintain_order=True).agg(pl.col("item").alias("items"))
    return of_frame(grouped, catalogue, unknown_items=unknown_items)


def of_flat(texts: pl.Series, counts: Ids, users: pl.Series, catalogue: Catalogue, *, unknown_items: str) -> Histories:
    """Histories from all raw ids in a row.

    Args:
        texts: raw ids `[N]`.
        counts: number of them of each user, `[U]`.
        users: the users' labels.
        catalogue: the recommender's.
        unknown_items: see `encode`.
    """
    if unknown_items not in UNKNOWN_ITEMS:
        raise UserError(f"unknown_items={unknown_items}: must be {' or '.join(UNKNOWN_ITEMS)}")
    if users.null_count() or (users.dtype.is_float() and users.is_nan().any()):
        raise UserError("histories: a user is null; name every user")
    items = catalogue.find(texts)
    known = items != UNKNOWN
    dropped = int(len(items) - known.sum())
    if dropped and unknown_items == "refuse":
        row = int(np.argmax(~known))
        user = users[int(np.searchsorted(np.cumsum(counts), row, side="right"))]
        raise UserError(
            f"histories: user {user} has item {texts[row]!r}, which the catalogue lacks; set unknown_items=drop to "
            "leave such items out"
        )
    if dropped:
        rows = np.repeat(np.arange(len(counts)), counts)[known]
        counts, items = np.bincount(rows, minlength=len(counts)).astype(np.int64), items[known]
    return Histories(users.alias("user"), items, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), dropped)

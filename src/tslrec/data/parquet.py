"""Writes a data set to three Parquet files (interactions, users, items) and reads it back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from tslrec.data.interactions import IdMap, Interactions
from tslrec.system.errors import UserError

INTERACTIONS, USERS, ITEMS = "interactions.parquet", "users.parquet", "items.parquet"


def save(interactions: Interactions, folder: Path) -> None:
    """Writes `interactions.parquet` (columns user, item, timestamp), `users.parquet` and `items.parquet`.

    The files of users and items hold the raw ids; the row number, from 0, is the id. Row 0 of the items is padding.

    Args:
        interactions: the data set.
        folder: an existing folder.
    """
    columns: dict[str, object] = {
        "user": np.repeat(np.arange(interactions.num_users), interactions.lengths),
        "item": interactions.items,
    }
    if interactions.timestamps is not None:
        columns["timestamp"] = interactions.timestamps
    pl.DataFrame(columns).write_parquet(folder / INTERACTIONS)
    pl.DataFrame({"raw_id": interactions.ids.users}).write_parquet(folder / USERS)
    items: dict[str, object] = {"raw_id": interactions.ids.items}
    if interactions.true_categories is not None:
        items["true_category"] = interactions.true_categories
    if interactions.titles is not None:
        items["title"] = interactions.titles
    pl.DataFrame(items).write_parquet(folder / ITEMS)


def load(folder: Path, name: str) -> Interactions:
    """Reads the files that `save` wrote.

    Args:
        folder: where the files are.
        name: the data set's name.

    Raises:
        UserError: if a file is missing, or the files do not fit together.
    """
    try:
        rows = pl.read_parquet(folder / INTERACTIONS, glob=False)
        users = pl.read_parquet(folder / USERS, glob=False)
        items = pl.read_parquet(folder / ITEMS, glob=False)
        columns = set(items.columns)
        counts = np.bincount(rows["user"].to_numpy(), minlength=len(users))
        return Interactions(
            name=name,
            items=rows["item"].to_numpy().astype(np.int32),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            ids=IdMap(tuple(users["raw_id"]), tuple(items["raw_id"])),
            timestamps=rows["timestamp"].to_numpy().copy() if "timestamp" in rows.columns else None,
            true_categories=items["true_category"].to_numpy().copy() if "true_category" in columns else None,
            titles=tuple(items["title"]) if "title" in columns else None,
        )
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{folder}: not a readable data set ({reason}); delete the folder, and the next run makes it again"
        ) from error

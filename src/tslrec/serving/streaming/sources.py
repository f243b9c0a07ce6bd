"""Where histories come from, a range of users at a time.

Shapes: U users of the source.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from tslrec.data.interactions import Interactions
from tslrec.serving.catalogue import Catalogue
from tslrec.serving.engine import Ids
from tslrec.serving.histories import Histories, encode
from tslrec.serving.run_histories import histories_of
from tslrec.system.errors import UserError
from tslrec.system.files import describe


class HistorySource(Protocol):
    """Histories of users in a fixed order."""

    @property
    def num_users(self) -> int:
        """U."""

    def identity(self) -> dict[str, Any]:
        """What the histories are, for a JSON file; others have another identity."""

    def read(self, users: slice, catalogue: Catalogue, unknown_items: str) -> Histories:
        """The histories of a range of users.

        Args:
            users: their places in the source, from 0.
            catalogue: the recommender's.
            unknown_items: see `tslrec.serving.histories.encode`.

        Raises:
            UserError: if they cannot be read, or an item is unknown and that is refused.
        """


class ListFile:
    """A Parquet file with the columns `user` and `items` (lists), of which only the wanted row groups are read.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_users: int = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()

    def identity(self) -> dict[str, Any]:
        return describe(self.path)

    def read(self, users: slice, catalogue: Catalogue, unknown_items: str) -> Histories:
        wanted = (
            pl.scan_parquet(self.path, glob=False).select("user", "items").slice(users.start, users.stop - users.start)
        )
        try:
            frame = wanted.collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.path}: not readable ({reason}); write it again") from error
        return encode(frame, catalogue, unknown_items=unknown_items)


class HeldHistories:
    """Histories in memory.

    Args:
        frame: columns `user` and `items` (lists).
        known_by: what the histories are, for `identity`.
    """

    def __init__(self, frame: pl.DataFrame, known_by: dict[str, Any]) -> None:
        self.frame = frame
        self.known_by = known_by

    @property
    def num_users(self) -> int:
        return len(self.frame)

    def identity(self) -> dict[str, Any]:
        return self.known_by

    def read(self, users: slice, catalogue: Catalogue, unknown_items: str) -> Histories:
        return encode(self.frame[users], catalogue, unknown_items=unknown_items)


class DatasetUsers:
    """Users of the data set that the recommender was trained on.

    Args:
        interactions: the data set.
        rows_U: its users that are wanted; None: all.
        leave_out: how many of each user's last items are left out.
    """

    def __init__(self, interactions: Interactions, rows_U: Ids | None = None, *, leave_out: int = 0) -> None:
        self.interactions = interactions
        self.rows_U = np.arange(interactions.num_users) if rows_U is None else rows_U
        self.leave_out = leave_out

    @property
    def num_users(self) -> int:
        return len(self.rows_U)

    def identity(self) -> dict[str, Any]:
        users = hashlib.sha256(self.rows_U.astype(np.int64).tobytes()).hexdigest()
        return {"data": self.interactions.name, "users": users, "leave_out": self.leave_out}

    def read(self, users: slice, catalogue: Catalogue, unknown_items: str) -> Histories:
        """See `HistorySource`; the data set's items are the catalogue's, so that none is unknown."""
        return histories_of(self.interactions, self.rows_U[users], leave_out=self.leave_out)

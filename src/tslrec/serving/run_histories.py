"""The histories of a run's own users.

Shapes: U users.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from tslrec.data.interactions import Interactions
from tslrec.serving.engine import Ids
from tslrec.serving.histories import Histories


def histories_of(interactions: Interactions, users_U: Ids | None = None, *, leave_out: int = 0) -> Histories:
    """The histories of users of a data set, labelled by their raw ids.

    Args:
        interactions: the data set.
        users_U: rows of the users in it; None: all users.
        leave_out: items to leave out at the end of each history: 1 gives what a test user's recommendations are made
            from, 2 the same of the validation.
    """
    users = np.arange(interactions.num_users) if users_U is None else users_U
    begins_U = interactions.offsets[users]
    lengths_U = np.maximum(interactions.offsets[users + 1] - begins_U - leave_out, 0)
    offsets = np.concatenate([[0], np.cumsum(lengths_U)]).astype(np.int64)
    source = np.arange(offsets[-1]) + np.repeat(begins_U - offsets[:-1], lengths_U)
    raw_ids = pl.Series("user", [interactions.ids.users[user] for user in users], dtype=pl.String)
    return Histories(raw_ids, interactions.items[source].astype(np.int64), offsets, rows=users)

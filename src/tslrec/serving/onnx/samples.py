"""Histories of the data set that a recommender was trained on, to check a graph and to measure what int8 costs.

Shapes: U users, N items of all histories.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from tslrec.data.interactions import TEST, Interactions
from tslrec.serving.engine import Ids
from tslrec.serving.histories import Histories


def spread(users: Ids, most: int) -> Ids:
    """At most `most` users, evenly spread over all."""
    if len(users) <= most:
        return users
    return users[np.linspace(0, len(users) - 1, most).astype(np.int64)]


def histories_of(interactions: Interactions, users_U: Ids, *, without_test: bool) -> Histories:
    """The histories of some users.

    Args:
        interactions: the data set.
        users_U: user ids.
        without_test: leave out each user's last item.
    """
    lengths_U = interactions.lengths[users_U] - (TEST if without_test else 0)
    within = np.arange(lengths_U.sum()) - np.repeat(np.cumsum(lengths_U) - lengths_U, lengths_U)
    items = interactions.items[within + np.repeat(interactions.offsets[users_U], lengths_U)].astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths_U)]).astype(np.int64)
    return Histories(pl.Series("user", users_U), items, offsets)


def targets_of(interactions: Interactions, users_U: Ids) -> Ids:
    """The last item of each user: the test item, `[U]`."""
    found: Ids = interactions.items[interactions.offsets[users_U + 1] - TEST].astype(np.int64)
    return found

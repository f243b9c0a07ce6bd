"""The users of an evaluation: which they are, their batches, and the items that they had before.

Shapes: B users, S (row, item) pairs of histories.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.interactions import Interactions
from tslrec.data.windows import index_in_group
from tslrec.system.processes import rank_and_world_size

SAMPLE_SEED = 0
"""Seed that draws the evaluated users where not all are evaluated; fixed, so that all methods and seeds share them."""


def sample_users(interactions: Interactions, count: int | None) -> NDArray[np.int64]:
    """Draws `count` of the users that can be evaluated, without replacement; None, or as many as there are, gives all.

    Returns:
        User ids, ascending.
    """
    users = interactions.evaluated_users
    if count is None or count >= len(users):
        return users
    return np.sort(np.random.default_rng(SAMPLE_SEED).choice(users, count, replace=False))


def evaluation_batches(
    interactions: Interactions, users: NDArray[np.int64], batch_size: int
) -> list[NDArray[np.int64]]:
    """Splits the users to evaluate into this rank's batches, sorted by the length of the history.

    All ranks get the same number of batches, since DDP may communicate between batches; the last one may be empty.

    Args:
        interactions: the data set.
        users: ids of all users to evaluate, over all ranks.
        batch_size: users per batch.
    """
    users = users[np.argsort(interactions.lengths[users], kind="stable")]
    rank, world_size = rank_and_world_size()
    largest_share = -(-len(users) // world_size)
    return np.split(users[rank::world_size], range(batch_size, largest_share, batch_size))


def seen_items(
    interactions: Interactions, begins_B: NDArray[np.int64], ends_B: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """All items of several ranges of the flat array, as pairs of row and item id.

    Args:
        interactions: the data set.
        begins_B: first index of each range.
        ends_B: index after the last one.

    Returns:
        The rows, not decreasing, and the item ids, both int64 `[S]`.
    """
    counts_B = ends_B - begins_B
    rows_S = np.repeat(np.arange(len(counts_B)), counts_B)
    index_S = index_in_group(counts_B) + np.repeat(begins_B, counts_B)
    return torch.from_numpy(rows_S), torch.from_numpy(interactions.items[index_S].astype(np.int64))

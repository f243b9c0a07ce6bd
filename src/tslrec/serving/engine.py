"""What computes user vectors and lists of items; free of torch, so that a server needs only onnxruntime.

Shapes: B users, L positions, I items (row 0 of a table is padding), K places of a list, S (user, item) pairs of
histories, C candidates, E size of a user vector.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]


class Batch(NamedTuple):
    """Histories of users that are computed together; each has one item or more.

    Attributes:
        items_BL: the last `max_len` items of each history, ids from 1, padded with 0 on the right.
        lengths_B: number of these items, from 1.
        seen_rows_S: with `seen_items_S`, the items that must not be recommended: rows of this batch, not falling.
        seen_items_S: item ids.
        users_B: the users' rows in the data set that the recommender was trained on; None: they are other users.
    """

    items_BL: Ids
    lengths_B: Ids
    seen_rows_S: Ids
    seen_items_S: Ids
    users_B: Ids | None = None


class Engine(Protocol):
    """Computes with a trained recommender; item ids in and out.

    Attributes:
        name: `pytorch` or `onnxruntime`, for messages and facts.
        num_items: I.
        max_len: the longest input, in items.
    """

    name: str
    num_items: int
    max_len: int

    def best_items(self, batch: Batch, length: int, candidates_C: Ids | None) -> tuple[Ids, Floats]:
        """The items with the highest scores, best first; of equal scores the lower id is first.

        Args:
            batch: histories, and what must not be recommended.
            length: K, at most I.
            candidates_C: distinct ids, rising, that alone may be recommended; None: all items.

        Returns:
            Ids `[B, K]`, 0 where a user has no more candidates, and scores `[B, K]`, minus infinity there.
        """

    def scores(self, batch: Batch, candidates_C: Ids) -> Floats:
        """The scores of some items for each user, `[B, C]`; `seen_…` is not read."""

    def user_vectors(self, batch: Batch) -> Floats:
        """The user vectors `[B, E]`; `seen_…` is not read."""

    def item_vectors(self) -> Floats:
        """The table whose rows score the items, `[I + 1, E]`: score = user vector · row; row 0 is padding."""

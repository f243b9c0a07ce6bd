"""Small data sets written out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tslrec.data.interactions import IdMap, Interactions


def make_interactions(sequences: Sequence[Sequence[int]], num_items: int | None = None) -> Interactions:
    """Interactions of users whose item sequences are given.

    Args:
        sequences: of each user the item ids, from 1, in the order of time.
        num_items: I; the largest id if it is not given.
    """
    items = np.concatenate([np.asarray(sequence, dtype=np.int32) for sequence in sequences])
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    num_items = num_items or int(items.max())
    ids = IdMap(
        users=tuple(f"u{user}" for user in range(len(sequences))),
        items=("", *(f"i{item}" for item in range(1, num_items + 1))),
    )
    return Interactions(name="written", items=items, offsets=offsets, ids=ids)

"""Training instances as indices into the flat array of interactions, never as copies.

Shapes: U users, W windows, P prefixes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tslrec.interactions import Interactions


@dataclass(frozen=True)
class Windows:
    """Stretches of training parts that are trained at all positions.

    Attributes:
        users: int64 `[W]`.
        starts: int64 `[W]`, the first input's place in the flat array.
        lengths: int64 `[W]`, inputs; the target of each is the item after it.
        skipped: int64 `[W]`, how many of the first targets another window has already.
    """

    users: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    skipped: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def num_targets(self) -> int:
        return int((self.lengths - self.skipped).sum())


@dataclass(frozen=True)
class Prefixes:
    """Every prefix of every training part, each with the item after it as its target.

    Attributes:
        users: int64 `[P]`.
        starts: int64 `[P]`, the first of the last `max_len` inputs.
        ends: int64 `[P]`, the target's place; the inputs end before it.
    """

    users: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)


def all_prefixes(interactions: Interactions, max_len: int) -> Prefixes:
    """All prefixes of length 1 or more, their last `max_len` items as input."""
    counts_U = interactions.train_lengths - 1
    users = np.repeat(np.arange(interactions.num_users), counts_U)
    begins = interactions.offsets[users]
    ends = begins + 1 + place_in_group(counts_U)
    return Prefixes(users, np.maximum(begins, ends - max_len), ends)


def all_windows(interactions: Interactions, max_len: int) -> Windows:
    """Windows that hold every training target exactly once.

    A history of up to `max_len` inputs is one window. A longer one is cut into overlapping windows, each half a window
    after the one before, so that no target sees less than half of the `max_len` items that it could; that part is an
    approximation of prefix training, all else is equal to it.
    """
    stride = max(1, max_len // 2)
    inputs_U = interactions.train_lengths - 1
    counts_U = np.where(inputs_U > 0, 1 + -(-np.maximum(inputs_U - max_len, 0) // stride), 0)
    users = np.repeat(np.arange(interactions.num_users), counts_U)
    place = place_in_group(counts_U)
    total = inputs_U[users]
    # The last window ends with the history, so it may overlap its neighbour by more than half.
    begin = np.minimum(place * stride, np.maximum(total - max_len, 0))
    length = np.minimum(total - begin, max_len)
    covered = np.where(place == 0, 0, (place - 1) * stride + max_len)
    return Windows(users, interactions.offsets[users] + begin, length, np.maximum(covered - begin, 0))


def recent_positions(train_lengths_U: NDArray[np.int64], max_len: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """E4SRec's instances (Li et al. 2023): each of a training part's last `max_len` positions is a target.

    Returns:
        Of each instance its user, and how many items are shown before the target: none before the first, and nothing
        of what was cut off.
    """
    counts_U = np.minimum(train_lengths_U, max_len)
    return np.repeat(np.arange(len(counts_U)), counts_U), place_in_group(counts_U)


def place_in_group(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of groups of these sizes, one behind the other, the place of each member in its own: 0, 1, …"""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)

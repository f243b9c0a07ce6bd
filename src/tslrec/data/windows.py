"""Training instances, as index ranges into the flat array of interactions, so that no item is copied.

Shapes: U users, W windows, P prefixes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tslrec.data.interactions import Interactions


@dataclass(frozen=True)
class Windows:
    """Ranges of training parts that are trained at all positions at once.

    Attributes:
        users: int64 `[W]`.
        starts: int64 `[W]`, index of the first input in the flat array.
        lengths: int64 `[W]`, number of inputs; the target of each input is the item after it.
        skipped: int64 `[W]`, number of the window's first targets that an earlier window trains already.
    """

    users: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    skipped: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def num_targets(self) -> int:
        """Number of targets of all windows, each counted once."""
        return int((self.lengths - self.skipped).sum())


@dataclass(frozen=True)
class Rows:
    """Ranges of training parts of which some items are masked and then told from the others.

    Attributes:
        users: int64 `[W]`.
        starts: int64 `[W]`, index of the first item in the flat array.
        lengths: int64 `[W]`, number of items.
    """

    users: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Prefixes:
    """Every prefix of every training part, each with the item after it as its target.

    Attributes:
        users: int64 `[P]`.
        starts: int64 `[P]`, index of the first input in the flat array; there are at most `max_len` inputs.
        ends: int64 `[P]`, index of the target; the inputs end before it.
    """

    users: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)


def all_prefixes(interactions: Interactions, max_len: int) -> Prefixes:
    """All prefixes of length 1 or more, with their last `max_len` items as input."""
    counts_U = interactions.train_lengths - 1
    users = np.repeat(np.arange(interactions.num_users), counts_U)
    begins = interactions.offsets[users]
    ends = begins + 1 + index_in_group(counts_U)
    return Prefixes(users, np.maximum(begins, ends - max_len), ends)


def all_windows(interactions: Interactions, max_len: int) -> Windows:
    """Windows that together hold every training target exactly once.

    A history of up to `max_len` inputs is one window; training it equals training its prefixes. A longer history is
    cut into overlapping windows, each starting half a window after the one before, so that every target sees at least
    half of the `max_len` items that a prefix would show: for those an approximation of prefix training.
    """
    users, number, begin, length = overlapping_windows(interactions.train_lengths - 1, max_len)
    covered = np.where(number == 0, 0, (number - 1) * window_stride(max_len) + max_len)
    return Windows(users, interactions.offsets[users] + begin, length, np.maximum(covered - begin, 0))


def all_rows(interactions: Interactions, max_len: int) -> Rows:
    """Rows that together hold every training part of two or more items, cut like `all_windows`."""
    totals_U = interactions.train_lengths
    users, _, begin, length = overlapping_windows(np.where(totals_U > 1, totals_U, 0), max_len)
    return Rows(users, interactions.offsets[users] + begin, length)


def window_stride(max_len: int) -> int:
    """Items between the beginnings of two windows of a history."""
    return max(1, max_len // 2)


def overlapping_windows(
    totals_U: NDArray[np.int64], max_len: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cuts sequences into windows of up to `max_len` that overlap by half.

    Args:
        totals_U: length of each user's sequence; a user with none has no window.
        max_len: length of the longest window.

    Returns:
        Of each window the user, its number among the user's, its begin in the sequence and its length.
    """
    stride = window_stride(max_len)
    counts_U = np.where(totals_U > 0, 1 + -(-np.maximum(totals_U - max_len, 0) // stride), 0)
    users = np.repeat(np.arange(len(totals_U)), counts_U)
    number = index_in_group(counts_U)
    total = totals_U[users]
    # The last window ends with the history, so it may overlap the one before it by more than half.
    begin = np.minimum(number * stride, np.maximum(total - max_len, 0))
    return users, number, begin, np.minimum(total - begin, max_len)


def recent_positions(train_lengths_U: NDArray[np.int64], max_len: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """E4SRec's training instances (Li et al. 2023): each of a training part's last `max_len` positions is a target.

    Args:
        train_lengths_U: length of each user's training part.
        max_len: number of positions.

    Returns:
        Of each instance the user, and the number of items shown before the target: none before the first of these
        positions, since earlier items are cut off.
    """
    counts_U = np.minimum(train_lengths_U, max_len)
    return np.repeat(np.arange(len(counts_U)), counts_U), index_in_group(counts_U)


def index_in_group(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """For consecutive groups of the given sizes, each member's index in its own group: 0, 1, …, 0, 1, …"""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)

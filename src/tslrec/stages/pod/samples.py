"""What POD's training samples are made of: random segments of histories, and items to choose from.

Both are drawn as in the public code (lileipisces/POD fd31697), but for what `Candidates` says.

Shapes: B samples, U users, I items.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tslrec.data.interactions import Interactions


def segments(
    train_lengths_B: NDArray[np.int64], most: int, draw: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A random segment of each training part: its last item is the target, the ones before it are shown.

    The segment begins uniformly anywhere but at the last item, and ends uniformly anywhere behind its beginning. So
    late targets are drawn more often than early ones, and most segments are short.

    Args:
        train_lengths_B: length of each training part, 2 or more.
        most: items that are shown, at most: the segment's last ones.
        draw: gives the random numbers.

    Returns:
        Where the shown items begin, and where the target is, both from the start of the history.
    """
    starts_B = draw.integers(0, train_lengths_B - 1)
    targets_B = draw.integers(starts_B + 1, train_lengths_B)
    return np.maximum(starts_B, targets_B - most), targets_B


class Candidates:
    """Draws the items that a user is to choose from: one that is right and others that the user never had.

    Args:
        interactions: the data set.
        number: items of a choice; fewer where there are no more.
        knows_held_out: never draw a user's validation and test items as others, as the public code does, which thereby
            knows them. False: only what the user is trained on is no other item.
    """

    def __init__(self, interactions: Interactions, number: int, *, knows_held_out: bool) -> None:
        self.interactions = interactions
        self.number = number
        self.lengths_U = interactions.lengths if knows_held_out else interactions.train_lengths

    def draw(self, user: int, right: int, draw: np.random.Generator) -> NDArray[np.int64]:
        """Item ids in random order, the right one among them.

        Args:
            user: the user's row in the data set.
            right: the right item's id.
            draw: gives the random numbers.
        """
        begin = int(self.interactions.offsets[user])
        had = np.union1d(self.interactions.items[begin : begin + int(self.lengths_U[user])], right)
        others = draw_others(self.interactions.num_items, had, self.number - 1, draw)
        return draw.permutation(np.concatenate([[right], others]).astype(np.int64))


def draw_others(
    num_items: int, excluded: NDArray[np.int64], count: int, draw: np.random.Generator
) -> NDArray[np.int64]:
    """Distinct items, uniform among those that are not excluded; fewer than `count` where there are no more.

    Args:
        num_items: I.
        excluded: item ids, distinct.
        count: number of items.
        draw: gives the random numbers.
    """
    count = min(count, num_items - len(excluded))
    if num_items < 4 * (count + len(excluded)):
        allowed = np.setdiff1d(np.arange(1, num_items + 1), excluded)
        return draw.permutation(allowed)[:count]
    found = np.zeros(0, dtype=np.int64)
    while len(found) < count:
        found = np.concatenate([found, draw.integers(1, num_items + 1, 2 * count)])
        _, first = np.unique(found, return_index=True)
        found = found[np.sort(first)]
        found = found[~np.isin(found, excluded)]
    return found[:count]

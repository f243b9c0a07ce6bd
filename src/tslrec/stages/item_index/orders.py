"""The order in which items are numbered, made so that nothing of the held-out items' order enters it.

Shapes: N interactions, U users, I items, R items in an order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tslrec.data.interactions import Interactions
from tslrec.data.windows import index_in_group

FIRST_NUMBER = 1001
"""The number of the first item (OpenP5, commit 7f11038): all of the first 8,999 items have four digits."""


def user_order(interactions: Interactions, order: str) -> NDArray[np.int64]:
    """The users `[U]` in the order in which their items are numbered.

    Args:
        interactions: the data set.
        order: `file`; or `short_first` or `long_first`: by the number of their interactions, ties in file order.
    """
    if order == "file":
        return np.arange(interactions.num_users)
    sign = 1 if order == "short_first" else -1
    return np.argsort(sign * interactions.lengths, kind="stable")


def trained_items(interactions: Interactions, users_U: NDArray[np.int64]) -> NDArray[np.int64]:
    """The items of the training parts `[R]`, in the order of their first appearance.

    Args:
        interactions: the data set.
        users_U: the users, in the order in which their training parts are read.
    """
    lengths_U = interactions.train_lengths[users_U]
    index_N = np.repeat(interactions.offsets[users_U], lengths_U) + index_in_group(lengths_U)
    return in_first_appearance(interactions.items[index_N])


def in_first_appearance(items_N: NDArray[np.integer]) -> NDArray[np.int64]:
    """The different items of a list `[R]`, in the order of their first appearance in it."""
    items_R, first_R = np.unique(items_N, return_index=True)
    ordered: NDArray[np.int64] = items_R[np.argsort(first_R)].astype(np.int64)
    return ordered


def never_trained(interactions: Interactions, seed: int) -> NDArray[np.int64]:
    """The items without a training interaction `[R]`, in a random order.

    OpenP5 numbers them in the order in which they are validation and test items, so that the validation and the test
    item of one user get neighbouring numbers.

    Args:
        interactions: the data set.
        seed: determines the order.
    """
    items_R = 1 + np.flatnonzero(interactions.training_counts[1:] == 0)
    return np.random.default_rng(seed).permutation(items_R)


def numbers_in_order(order_R: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of each item `[I + 1]`, consecutive from `FIRST_NUMBER`; 0 for padding.

    Args:
        order_R: all items 1…I, each once.
    """
    numbers_I = np.zeros(len(order_R) + 1, dtype=np.int64)
    numbers_I[order_R] = FIRST_NUMBER + np.arange(len(order_R))
    return numbers_I

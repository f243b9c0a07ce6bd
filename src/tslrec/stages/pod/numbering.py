"""The numbers by which POD's prompts name users and items.

Digits are shared between numbers, so near numbers look alike to the language model. Numbers given in order of
appearance therefore tell which items occur together; if they go through the test item, as in the data that the public
code was run on, they tell what is to be predicted (jeykigung/P5, pull request 3).

Shapes: U users, I items (row 0 is padding), N interactions, M items in some order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tslrec.data.interactions import Interactions
from tslrec.data.windows import index_in_group

NUMBERS_STREAM = 11
"""Number of the random stream that orders users and never-trained items."""


@dataclass(frozen=True)
class Numbering:
    """Numbers of users and items, each from 1.

    Attributes:
        of_user_U: int64, the number of each user.
        of_item_I: int64 `[I + 1]`, the number of each item; 0 for padding.
    """

    of_user_U: NDArray[np.int64]
    of_item_I: NDArray[np.int64]

    @cached_property
    def items_by_number(self) -> NDArray[np.int64]:
        """The item id of each number, `[I + 1]`; 0 of 0."""
        inverse = np.zeros_like(self.of_item_I)
        inverse[self.of_item_I] = np.arange(len(self.of_item_I))
        return inverse


def released_numbering(interactions: Interactions) -> Numbering:
    """Users in the data's order; items in order of appearance in whole histories, test items included."""
    order = appearance(interactions, np.arange(interactions.num_users), interactions.lengths)
    return Numbering(np.arange(1, interactions.num_users + 1), numbered(order, interactions.num_items))


def clean_numbering(interactions: Interactions, seed: int) -> Numbering:
    """Numbers that no held-out item has any part in.

    Users are in a random order, for that of a file may come from whole histories. Items are in order of appearance in
    the training parts, read in the users' order. Never-trained items follow in a random order.

    Args:
        interactions: the data set.
        seed: decides both orders.
    """
    draw = np.random.default_rng([seed, NUMBERS_STREAM])
    users = draw.permutation(interactions.num_users)
    of_user_U = np.empty(interactions.num_users, dtype=np.int64)
    of_user_U[users] = np.arange(1, interactions.num_users + 1)
    trained = appearance(interactions, users, interactions.train_lengths)
    others = np.setdiff1d(np.arange(1, interactions.num_items + 1), trained)
    return Numbering(of_user_U, numbered(np.concatenate([trained, draw.permutation(others)]), interactions.num_items))


def appearance(interactions: Interactions, users: NDArray[np.int64], lengths_U: NDArray[np.int64]) -> NDArray[np.int64]:
    """Item ids in the order of their first appearance, int64 `[M]`.

    Args:
        interactions: the data set.
        users: in the order in which they are read.
        lengths_U: how many items of each user are read, from the first.
    """
    counts = lengths_U[users]
    items = interactions.items[np.repeat(interactions.offsets[users], counts) + index_in_group(counts)]
    _, first = np.unique(items, return_index=True)
    return items[np.sort(first)].astype(np.int64)


def numbered(order_M: NDArray[np.int64], num_items: int) -> NDArray[np.int64]:
    """The number of each item, `[I + 1]`: its place in `order_M`, from 1; items that are not in it follow by id."""
    rest = np.setdiff1d(np.arange(1, num_items + 1), order_M)
    of_item_I = np.zeros(num_items + 1, dtype=np.int64)
    of_item_I[np.concatenate([order_M, rest])] = np.arange(1, num_items + 1)
    return of_item_I

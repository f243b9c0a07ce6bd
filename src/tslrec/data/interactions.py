"""A data set in memory: each user's items in time order, validated on construction and read-only.

Shapes: N interactions, U users, I items. Item ids run from 1 to I; 0 is padding.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

PADDING = 0
"""Id of the padding item, which no user ever has."""
TEST, VALIDATION = 1, 2
"""Position of the test and the validation item, counted from the end of a user's items."""
MIN_EVALUATED_LENGTH = 3
"""Interactions that a user needs for leave-one-out: a test item, a validation item and one item to train on."""


@dataclass(frozen=True)
class IdMap:
    """The raw ids of users and items: entry i is the raw id, as the file has it, of user i or item i.

    Item 0 is padding; its raw id is the empty string.

    Attributes:
        users: raw ids of users 0..U - 1.
        items: raw ids of items 0..I.

    Raises:
        ValueError: if item 0 is not the empty string, or a raw id occurs twice.
    """

    users: tuple[str, ...]
    items: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.items or self.items[PADDING] != "":
            raise ValueError("item 0 is padding: its raw id must be the empty string")
        for kind, raw_ids in (("user", self.users), ("item", self.items)):
            if len(set(raw_ids)) != len(raw_ids):
                raise ValueError(f"a raw {kind} id occurs twice in the id map")

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of both lists: maps with equal digests are equal."""
        state = hashlib.sha256()
        for raw_ids in (self.users, self.items):
            for raw_id in raw_ids:
                state.update(raw_id.encode() + b"\n")
            state.update(b"\0")
        return state.hexdigest()


@dataclass(frozen=True)
class Interactions:
    """A data set: one flat array with all users' items, user after user, each user's items in time order.

    Attributes:
        name: the data set's name.
        items: int32 `[N]`, ids 1..I.
        offsets: int64 `[U + 1]`; user u's items are `items[offsets[u]:offsets[u + 1]]`.
        ids: the raw ids of users and items.
        timestamps: int64 or float64 `[N]`, not decreasing within a user; None if the source has none.
        true_categories: int64 `[I + 1]`, the latent category of each item (-1 for padding) of generated data; None for
            real data.
        titles: the title of each item, "" for padding; None where the source has none. They influence no result.

    Raises:
        ValueError: if the arrays do not fit together.
    """

    name: str
    items: NDArray[np.int32]
    offsets: NDArray[np.int64]
    ids: IdMap
    timestamps: NDArray[np.float64] | NDArray[np.int64] | None = None
    true_categories: NDArray[np.int64] | None = None
    titles: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.items) or (np.diff(self.offsets) < 1).any():
            raise ValueError(
                "offsets must rise from 0 to the number of interactions; every user must have at least one"
            )
        if len(self.ids.users) != self.num_users:
            raise ValueError(f"{self.num_users} users, but {len(self.ids.users)} raw user ids")
        if len(self.items) and (self.items.min() < 1 or self.items.max() > self.num_items):
            raise ValueError(f"item ids must lie in 1..{self.num_items}")
        if self.timestamps is not None and len(self.timestamps) != len(self.items):
            raise ValueError(f"{len(self.timestamps)} timestamps, but {len(self.items)} interactions")
        if self.true_categories is not None and len(self.true_categories) != self.num_items + 1:
            raise ValueError(f"{len(self.true_categories)} true categories, but {self.num_items} items and padding")
        if self.titles is not None and len(self.titles) != self.num_items + 1:
            raise ValueError(f"{len(self.titles)} titles, but {self.num_items} items and padding")
        for array in (self.items, self.offsets, self.timestamps, self.true_categories):
            if array is not None:
                array.setflags(write=False)

    @property
    def num_users(self) -> int:
        """Number of users, U."""
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        """Number of items, I; padding is not counted."""
        return len(self.ids.items) - 1

    @property
    def num_interactions(self) -> int:
        """Number of interactions, N."""
        return len(self.items)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Number of interactions of each user, `[U]`."""
        return np.diff(self.offsets)

    @cached_property
    def evaluated_users(self) -> NDArray[np.int64]:
        """Ids of the users with enough interactions for leave-one-out, ascending; the others are only trained on."""
        return np.flatnonzero(self.lengths >= MIN_EVALUATED_LENGTH)

    @cached_property
    def train_lengths(self) -> NDArray[np.int64]:
        """Length of each user's training part, `[U]`.

        The training part is all items but the last two (validation and test), or all items of a user with too few
        interactions to be evaluated.
        """
        return np.where(self.lengths >= MIN_EVALUATED_LENGTH, self.lengths - 2, self.lengths)

    @property
    def is_training_N(self) -> NDArray[np.bool_]:  # noqa: N802 - a shape suffix is a capital letter
        """Whether each interaction belongs to the training part, `[N]`."""
        ends = self.offsets[1:][self.evaluated_users]
        is_training_N = np.ones(self.num_interactions, dtype=np.bool_)
        is_training_N[ends - TEST] = is_training_N[ends - VALIDATION] = False
        return is_training_N

    @cached_property
    def training_counts(self) -> NDArray[np.int64]:
        """How often each item occurs in the training part, `[I + 1]`."""
        return np.bincount(self.items[self.is_training_N], minlength=self.num_items + 1)

    def sequence(self, user: int) -> NDArray[np.int32]:
        """All items of one user in time order."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

"""Users' item sequences in time order: validated once, frozen, without any framework.

Shapes: N interactions, U users, I items. Item ids run from 1 to I; 0 is padding.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

PADDING = 0
MIN_EVALUATED_LENGTH = 3
"""Leave-one-out needs a test item, a validation item and at least one item to train on."""


@dataclass(frozen=True)
class IdMap:
    """What the ids inside mean outside: position i holds the raw id of user i, or of item i.

    Item 0 is padding and its raw id is the empty string.
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
        """Hex sha256 of both lists: two maps with the same digest mean the same."""
        state = hashlib.sha256()
        for raw_ids in (self.users, self.items):
            for raw_id in raw_ids:
                state.update(raw_id.encode() + b"\n")
            state.update(b"\0")
        return state.hexdigest()


@dataclass(frozen=True)
class Interactions:
    """A data set: one flat array of items, user after user, each user's in time order.

    Attributes:
        name: what tables call the data set.
        items: int32 `[N]`, ids 1..I.
        offsets: int64 `[U + 1]`; user u's items are `items[offsets[u]:offsets[u + 1]]`.
        ids: the raw ids behind users and items.
        timestamps: int64 or float64 `[N]`, not decreasing within a user; None where the source has none.
        true_categories: int64 `[I + 1]`, the latent category of each item where the data were generated
            (-1 for padding); None for real data.
    """

    name: str
    items: NDArray[np.int32]
    offsets: NDArray[np.int64]
    ids: IdMap
    timestamps: NDArray[np.float64] | NDArray[np.int64] | None = None
    true_categories: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.items) or (np.diff(self.offsets) < 1).any():
            raise ValueError("offsets must rise from 0 to the number of interactions, every user having one at least")
        if len(self.ids.users) != self.num_users:
            raise ValueError(f"{self.num_users} users, but {len(self.ids.users)} raw user ids")
        if len(self.items) and (self.items.min() < 1 or self.items.max() > self.num_items):
            raise ValueError(f"item ids must lie in 1..{self.num_items}")
        if self.timestamps is not None and len(self.timestamps) != len(self.items):
            raise ValueError("as many timestamps as interactions")
        if self.true_categories is not None and len(self.true_categories) != self.num_items + 1:
            raise ValueError("as many true categories as items, and one for padding")
        for array in (self.items, self.offsets, self.timestamps, self.true_categories):
            if array is not None:
                array.setflags(write=False)

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        """How many items there are, padding not counted."""
        return len(self.ids.items) - 1

    @property
    def num_interactions(self) -> int:
        return len(self.items)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Interactions of each user, `[U]`."""
        return np.diff(self.offsets)

    @cached_property
    def evaluated_users(self) -> NDArray[np.int64]:
        """The users long enough for leave-one-out; the others train only."""
        return np.flatnonzero(self.lengths >= MIN_EVALUATED_LENGTH)

    @cached_property
    def train_lengths(self) -> NDArray[np.int64]:
        """How many of a user's first items are the training part, `[U]`.

        All but the last two (validation and test), or all of them for a user too short to evaluate.
        """
        return np.where(self.lengths >= MIN_EVALUATED_LENGTH, self.lengths - 2, self.lengths)

    @property
    def trained(self) -> NDArray[np.bool_]:
        """Whether each interaction belongs to the training part, `[N]`."""
        ends = self.offsets[1:][self.evaluated_users]
        trained = np.ones(self.num_interactions, dtype=np.bool_)
        trained[ends - 1] = trained[ends - 2] = False
        return trained

    def sequence(self, user: int) -> NDArray[np.int32]:
        """All items of one user in time order."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

"""What the held-out items of a data set can tell: how many were seen before, and how many differ.

Shapes: V evaluated users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tslrec.data.interactions import Interactions

USERS_AT_A_TIME = 4096
"""Users whose histories are compared with their targets at once."""


@dataclass(frozen=True)
class HeldOut:
    """Counts of the targets of a validation or of the test.

    Attributes:
        users: evaluated users, V.
        seen: users whose target is in their history, so that masking the history removes it from the ranking.
        distinct: different targets.
    """

    users: int
    seen: int
    distinct: int

    @property
    def share(self) -> float:
        """Share of the users whose target is in their history; 0 without users."""
        return self.seen / self.users if self.users else 0.0


def held_out(interactions: Interactions, users_V: NDArray[np.int64], position: int) -> HeldOut:
    """Counts the targets of users.

    Args:
        interactions: the data set.
        users_V: evaluated users.
        position: `TEST` or `VALIDATION`, the target's position from the end of a user's items. The history is all
            items before it.
    """
    ends_V = interactions.offsets[users_V + 1] - position
    targets_V = interactions.items[ends_V]
    seen = 0
    for first in range(0, len(users_V), USERS_AT_A_TIME):
        part = slice(first, first + USERS_AT_A_TIME)
        begins, ends = interactions.offsets[users_V[part]], ends_V[part]
        lengths = ends - begins
        source = np.repeat(begins - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        same = interactions.items[source] == np.repeat(targets_V[part], lengths)
        seen += int((np.add.reduceat(same, np.cumsum(lengths) - lengths) > 0).sum())
    return HeldOut(len(users_V), seen, len(np.unique(targets_V)))

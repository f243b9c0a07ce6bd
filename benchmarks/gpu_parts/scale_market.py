"""The market of the part `scale`: how many users, items and targets there are, and random histories.

Shapes: N interactions.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from gpu_parts.bench import Bench

if TYPE_CHECKING:
    import numpy as np

    from tslrec.data.interactions import Interactions

MEAN_LENGTH = 10
"""Interactions of a user, all of them alike: it is the number of items that makes this data set large."""
TARGETS = 4096
BEAUTY_ITEMS = 12_101
SKEW = 3
"""An item's number is (a uniform draw)^3 of all: a fifth of the items gets 0.2^(1/3) = 58 % of the interactions."""


def sizes(bench: Bench) -> tuple[int, int]:
    """Users and items."""
    return bench.sized((1_000_000, 1_000_000), (200, 300))


def targets_of(bench: Bench) -> int:
    """T."""
    return bench.sized(TARGETS, 64)


@cache
def market(num_users: int, num_items: int) -> Interactions:
    """Random histories of `MEAN_LENGTH` items, some items more popular than others, and every item in it once."""
    import numpy as np

    from tslrec.data.interactions import IdMap, Interactions

    size = num_users * MEAN_LENGTH
    draw = np.random.default_rng(0)
    items_N = skewed(draw.random(size, dtype=np.float32), num_items)
    items_N[draw.choice(size, num_items, replace=False)] = np.arange(1, num_items + 1)
    return Interactions(
        name="scale",
        items=items_N,
        offsets=np.arange(num_users + 1, dtype=np.int64) * MEAN_LENGTH,
        ids=IdMap(tuple(map(str, range(num_users))), ("", *map(str, range(num_items)))),
    )


def skewed(uniform_N: np.ndarray, num_items: int) -> np.ndarray:
    """Item ids from numbers in [0, 1)."""
    import numpy as np

    return np.minimum((num_items * uniform_N**SKEW).astype(np.int32), num_items - 1) + 1

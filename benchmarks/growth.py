"""How time and memory grow: a generated market of 1, 4 and 16 times as many users and items.

Shapes: N interactions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tslrec.data.interactions import IdMap, Interactions

USERS, ITEMS = 5_000, 3_000
MIN_LENGTH, MEAN_LENGTH = 5, 9.0
"""As in Beauty."""


def market(scale: int, *, users: int = USERS, items: int = ITEMS, seed: int = 0) -> Interactions:
    """Histories of random items, some more popular than others: what there is to learn does not change the cost."""
    draw = np.random.default_rng([seed, scale])
    num_users, num_items = scale * users, scale * items
    lengths = MIN_LENGTH + draw.poisson(MEAN_LENGTH - MIN_LENGTH, size=num_users)
    items_N = 1 + (num_items * draw.random(lengths.sum()) ** 2).astype(np.int32)
    return Interactions(
        name=f"growth_{scale}",
        items=items_N,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        ids=IdMap(tuple(map(str, range(num_users))), ("", *map(str, range(num_items)))),
    )


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The power of size that values grow with: the slope of a straight line through both logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])

"""LlamaRec's training instances: a prefix of a training part, and the target among random candidates.

Shapes: N instances, B instances of a batch, C candidates, I items.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tslrec.data.batching import RandomBatches, drawn_share
from tslrec.data.interactions import Interactions
from tslrec.data.windows import Prefixes, all_prefixes

CANDIDATE_STREAM = 3
"""Number of the random stream that draws candidates."""


class VisitBatches(RandomBatches):
    """Random batches of instances, each with the number of the pass that it belongs to: int64 `[2, B]`."""

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        for batch in super().__iter__():
            # The counters are already those of the next batch.
            visit = self.epoch - 1 if self.position == 0 else self.epoch
            yield np.stack([batch, np.full_like(batch, visit)])


def training_prefixes(interactions: Interactions, history: int, share: float, seed: int) -> Prefixes:
    """The prefixes that are trained on: those with one item or more, of training parts.

    Args:
        interactions: the data set.
        history: items of a prefix that are shown at most, the last ones.
        share: share of them that is kept, at least one.
        seed: draws the share.
    """
    prefixes = all_prefixes(interactions, history)
    kept = drawn_share(len(prefixes), share, seed)
    return Prefixes(prefixes.users[kept], prefixes.starts[kept], prefixes.ends[kept])


def training_candidates(
    before: NDArray[np.int64], target: int, *, num_items: int, count: int, draw: np.random.Generator
) -> tuple[NDArray[np.int64], int]:
    """Distinct candidates in random order: the target, and items that the user had not had up to it.

    Items that the user takes later may be among them, as in the original.

    Args:
        before: all items before the target, not only those that are shown.
        target: the next item.
        num_items: I.
        count: C; fewer where there are no more items.
        draw: of this instance in this pass.

    Returns:
        Item ids `[C]`, and the place of the target.
    """
    others = negatives(np.union1d(before, [target]), num_items=num_items, count=count - 1, draw=draw)
    candidates = draw.permutation(np.concatenate([[target], others]))
    return candidates, int(np.flatnonzero(candidates == target)[0])


def negatives(
    excluded: NDArray[np.int64], *, num_items: int, count: int, draw: np.random.Generator
) -> NDArray[np.int64]:
    """Distinct items, each equally likely.

    Args:
        excluded: item ids that are not drawn, rising and distinct.
        num_items: I.
        count: how many; fewer where there are no more.
        draw: draws them.
    """
    free = num_items - len(excluded)
    if free < max(4 * count, num_items // 4):
        pool = np.setdiff1d(np.arange(1, num_items + 1), excluded)
        return draw.choice(pool, min(count, free), replace=False)
    found = np.zeros(0, dtype=np.int64)
    while len(found) < count:
        drawn = np.concatenate([found, draw.integers(1, num_items + 1, size=2 * count)])
        drawn = drawn[~np.isin(drawn, excluded)]
        # The first occurrences, in the order of the draw.
        found = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
    return found[:count]

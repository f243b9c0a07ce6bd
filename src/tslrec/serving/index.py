"""Finds the best items with faiss instead of scoring all of them, for catalogues above a hundred thousand items.

Shapes: B users, R of them, I items (row 0 of a table is padding), E size of a vector, K places of a list, S (user,
item) pairs of histories, C candidates, W places of a search.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from tslrec.serving import hnsw
from tslrec.serving.engine import Batch, Engine, Floats, Ids

Search = Callable[[Floats, int], tuple[Floats, Ids]]
"""From user vectors `[B, E]` and W to scores and items `[B, W]`, counted from 0; -1 for none."""

WIDEST = 2048
"""The widest search; beyond it, scoring all items is as fast."""
SPARE = 1.5
"""How many times the expected places are searched for when only some items are candidates."""


class IndexEngine:
    """An engine that finds items in an index of item vectors, and asks another engine for everything else.

    Seen items and items that are no candidates are taken out of what the index finds, so more is searched for than is
    wanted. Where too little is left, or that would be known before, the other engine scores all items.

    Args:
        inner: computes user vectors, and scores all items where needed.
        search: finds items.
        name: of the index.
    """

    def __init__(self, inner: Engine, search: Search, name: str) -> None:
        self.inner = inner
        self.search = search
        self.name = f"{name} over {inner.name}"
        self.num_items = inner.num_items
        self.max_len = inner.max_len
        self.table_IE = inner.item_vectors()

    def best_items(self, batch: Batch, length: int, candidates_C: Ids | None) -> tuple[Ids, Floats]:
        size = len(batch.items_BL)
        width = self.width(batch, length, candidates_C)
        if width > min(WIDEST, self.num_items):
            return self.inner.best_items(batch, length, candidates_C)
        user_BE = self.inner.user_vectors(batch)
        scores_BW, found_BW = self.search(user_BE, width)
        found_BW = found_BW + 1
        gone_BW = (found_BW == 0) | self.seen(batch, found_BW)
        if candidates_C is not None:
            allowed_I = np.zeros(self.num_items + 1, dtype=np.bool_)
            allowed_I[candidates_C] = True
            gone_BW |= ~allowed_I[found_BW]
        scores_BW[gone_BW] = -np.inf
        # By score; of equal scores the lower item first.
        order_BK = np.lexsort((found_BW, -scores_BW), axis=1)[:, :length]
        scores_BK = np.take_along_axis(scores_BW, order_BK, axis=1)
        ids_BK = np.where(scores_BK == -np.inf, 0, np.take_along_axis(found_BW, order_BK, axis=1))
        short_R = np.flatnonzero(ids_BK[:, length - 1] == 0)
        if len(short_R):
            rest = part(batch, short_R, size)
            ids_BK[short_R], scores_BK[short_R] = self.inner.best_items(rest, length, candidates_C)
        return ids_BK, scores_BK

    def width(self, batch: Batch, length: int, candidates_C: Ids | None) -> int:
        """W: enough for K items after the seen ones and, as far as can be expected, the excluded ones are taken out."""
        most_seen = int(np.bincount(batch.seen_rows_S, minlength=1).max())
        width = length + most_seen
        if candidates_C is None:
            return width
        return math.ceil(SPARE * width * self.num_items / len(candidates_C))

    def seen(self, batch: Batch, found_BW: Ids) -> NDArray[np.bool_]:
        """Whether each item that was found is one of the user's seen items, `[B, W]`."""
        rows_BW = np.arange(len(found_BW))[:, None] * (self.num_items + 1)
        return np.isin(rows_BW + found_BW, batch.seen_rows_S * (self.num_items + 1) + batch.seen_items_S)

    def scores(self, batch: Batch, candidates_C: Ids) -> Floats:
        return self.inner.scores(batch, candidates_C)

    def user_vectors(self, batch: Batch) -> Floats:
        return self.inner.user_vectors(batch)

    def item_vectors(self) -> Floats:
        return self.table_IE


def part(batch: Batch, rows_R: Ids, size: int) -> Batch:
    """The batch of some rows.

    Args:
        batch: of `size` users.
        rows_R: rising.
        size: B.
    """
    new_row_B = np.full(size, -1, dtype=np.int64)
    new_row_B[rows_R] = np.arange(len(rows_R))
    kept_S = new_row_B[batch.seen_rows_S] >= 0
    return Batch(
        batch.items_BL[rows_R],
        batch.lengths_B[rows_R],
        new_row_B[batch.seen_rows_S[kept_S]],
        batch.seen_items_S[kept_S],
    )


def exact(inner: Engine) -> IndexEngine:
    """An engine with faiss's exact index (`IndexFlatIP`)."""
    vectors_IE = np.ascontiguousarray(inner.item_vectors()[1:])
    index = faiss.IndexFlatIP(vectors_IE.shape[1])
    index.add(vectors_IE)
    return IndexEngine(inner, lambda user_BE, width: index.search(np.ascontiguousarray(user_BE), width), "flat")


def approximate(inner: Engine, graph: Path | None = None) -> IndexEngine:
    """An engine with an HNSW graph.

    Args:
        inner: see `IndexEngine`.
        graph: file of a graph over the same items; None: build one.

    Raises:
        UserError: if the graph is not one of these items.
    """
    vectors_IE = np.ascontiguousarray(inner.item_vectors()[1:])
    index = hnsw.build(vectors_IE) if graph is None else hnsw.read_graph(graph, vectors_IE)
    return IndexEngine(inner, lambda user_BE, width: hnsw.search(index, user_BE, width), "hnsw")

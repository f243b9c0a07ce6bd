"""Nearest neighbours in the space of the knowledge embeddings, compared with those of the backbone's embeddings.

Shapes: I items (row 0 is padding), S sampled items, H size of a knowledge embedding, D hidden size of the backbone,
R items that a regression was not fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAREST = 10
"""Neighbours of an item that are compared."""
SHOWN = 5
"""Neighbours that are listed for each of the `PROBES`."""
PROBES = 8
"""Number of the most popular items whose neighbours are listed."""
SAMPLE = 2000
"""Largest number of items, drawn at random, over which shares are computed."""


def neighbours(
    knowledge_IH: NDArray[Any],
    own_ID: NDArray[Any],
    clusters_I: NDArray[Any] | None,
    popularity_I: NDArray[np.int64],
    raw_ids: Sequence[str],
) -> dict[str, Any]:
    """Compares the neighbours in two spaces, both by the cosine of centred and scaled vectors.

    Args:
        knowledge_IH: the knowledge embedding of each item.
        own_ID: the backbone's embedding of each item.
        clusters_I: the category of each item (k-means); None where the method has none.
        popularity_I: how often each item occurs; the neighbours of the most popular ones are listed.
        raw_ids: of all rows; the listed items are named by them.

    Returns:
        `items`: number of sampled items; `nearest`: number of neighbours of each (10, or fewer in a small catalogue);
        `overlap`: the share of an item's neighbours by knowledge that are also its neighbours by the backbone's
        embeddings, and `by_chance`, the share that is expected of unrelated spaces; `same_cluster` and
        `own_same_cluster`: the share of neighbours in the item's category, by knowledge and by the backbone's
        embeddings; `explained`: see `linearly_explained`; `probes`: some items with their nearest items and cosines.
    """
    draw = np.random.default_rng(0)
    rows_S = np.sort(draw.choice(len(knowledge_IH) - 1, min(SAMPLE, len(knowledge_IH) - 1), replace=False)) + 1
    near, own_near = (nearest(table, rows_S)[0] for table in (knowledge_IH, own_ID))
    shared = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(near, own_near, strict=True)]
    found: dict[str, Any] = {
        "items": len(rows_S),
        "nearest": int(near.shape[1]),
        "overlap": float(np.mean(shared)),
        "by_chance": near.shape[1] / (len(knowledge_IH) - 2),
        "explained": linearly_explained(own_ID[1:], knowledge_IH[1:]),
    }
    if clusters_I is not None:
        mine_S1 = clusters_I[rows_S, None]
        found["same_cluster"] = float((clusters_I[near] == mine_S1).mean())
        found["own_same_cluster"] = float((clusters_I[own_near] == mine_S1).mean())
    probes = np.argsort(-popularity_I[1:], kind="stable")[:PROBES] + 1
    near, cosines = nearest(knowledge_IH, probes)
    found["probes"] = [
        {
            "item": raw_ids[probe],
            "nearest": [raw_ids[item] for item in row[:SHOWN]],
            "cosines": [round(float(cosine), 4) for cosine in of[:SHOWN]],
        }
        for probe, row, of in zip(probes, near, cosines, strict=True)
    ]
    return found


def linearly_explained(own_ID: NDArray[Any], knowledge_IH: NDArray[Any]) -> float:
    """How much of the backbone's embeddings a linear map of the knowledge can reproduce: what a fusion could recover.

    The map is a ridge regression on four fifths of the items (penalty 0.01 per item, knowledge standardised).

    Args:
        own_ID: the backbone's embeddings, without padding.
        knowledge_IH: the knowledge embeddings, without padding.

    Returns:
        The share of the embeddings' variance that it explains on the other items; below 0 if their mean would predict
        them better.
    """
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    order = np.random.default_rng(0).permutation(len(own_ID))
    fitted, held = np.split(order, [len(order) * 4 // 5])
    y_ID = own_ID.astype(np.float64)
    linear = make_pipeline(StandardScaler(), Ridge(alpha=0.01 * len(fitted)))
    linear.fit(knowledge_IH[fitted].astype(np.float64), y_ID[fitted])
    missed_RD = y_ID[held] - linear.predict(knowledge_IH[held].astype(np.float64))
    return float(1 - np.square(missed_RD).sum() / np.square(y_ID[held] - y_ID[fitted].mean(axis=0)).sum())


def nearest(table_ID: NDArray[Any], rows_S: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest other items of some items.

    Args:
        table_ID: vectors of all items; row 0 is padding.
        rows_S: item ids.

    Returns:
        Item ids, nearest first, and their cosines; both `[S, NEAREST]`, or narrower if there are fewer items.
    """
    items = table_ID[1:].astype(np.float64)
    items = (items - items.mean(axis=0)) / np.maximum(items.std(axis=0), 1e-12)
    items /= np.maximum(np.linalg.norm(items, axis=1, keepdims=True), 1e-12)
    cosines = items[rows_S - 1] @ items.T
    cosines[np.arange(len(rows_S)), rows_S - 1] = -np.inf
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : min(NEAREST, len(items) - 1)]
    return order + 1, np.take_along_axis(cosines, order, axis=1)

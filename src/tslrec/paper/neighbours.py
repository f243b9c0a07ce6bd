"""What lies near an item in the space of a knowledge embedding, and whether that is more than its backbone knew.

Shapes: I items (row 0 is padding), S items that are looked at, H size of the knowledge, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAREST = 10
SHOWN = 5
PROBES = 8
SAMPLE = 2000
"""How many items at most the shares are of."""


def neighbours(
    knowledge_IH: NDArray[Any],
    own_ID: NDArray[Any],
    clusters_I: NDArray[Any] | None,
    popularity_I: NDArray[np.int64],
    raw_ids: Sequence[str],
) -> dict[str, Any]:
    """Neighbours by the cosine of centred and scaled knowledge, beside those by the backbone's embeddings.

    Args:
        knowledge_IH: the knowledge of each item.
        own_ID: the backbone's embedding of each.
        clusters_I: the preliminary categories, where the method has them.
        popularity_I: how often each occurs; the most popular ones are shown.
        raw_ids: of all rows, what the shown ones are called by.

    Returns:
        `overlap`: the share of an item's 10 nearest that are among its 10 nearest by the backbone's embeddings, and
        `by_chance`, what would be expected of unrelated spaces; `same_cluster`, `own_same_cluster`: the share of them
        in its preliminary category, by either space; `explained`: see `linearly_explained`; `probes`: some items,
        each with its nearest and their cosines.
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
    """How much of the backbone's embeddings a linear map of the knowledge gives back: what a fusion could recover.

    A ridge regression (penalty .01 an item, knowledge standardised) on four fifths of the items.

    Returns:
        The share of the embeddings' variance that it explains on the others; below 0 if the mean would be better.
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
    """The nearest other items of some items, nearest first, and their cosines; both `[S, NEAREST]` or narrower."""
    items = table_ID[1:].astype(np.float64)
    items = (items - items.mean(axis=0)) / np.maximum(items.std(axis=0), 1e-12)
    items /= np.maximum(np.linalg.norm(items, axis=1, keepdims=True), 1e-12)
    cosines = items[rows_S - 1] @ items.T
    cosines[np.arange(len(rows_S)), rows_S - 1] = -np.inf
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : min(NEAREST, len(items) - 1)]
    return order + 1, np.take_along_axis(cosines, order, axis=1)

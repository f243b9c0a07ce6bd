"""Metrics of parts of the users or the items: groups of equal size, rising by activity or by popularity.

What is kept of a group is its size, its range and its means, so that nothing of the data themselves is published.

Shapes: T tested users, I items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tslrec.metrics import CUTOFFS, PROTOCOLS

USER_GROUPS = 5
ITEM_GROUPS = 10


def gains(ranks_T: NDArray[Any], name: str, k: int) -> NDArray[np.float64]:
    """What each rank adds to a metric, `HR` or `NDCG`, of a list of `k`."""
    within_T = ranks_T <= k
    if name == "HR":
        return within_T.astype(np.float64)
    return np.where(within_T, 1 / np.log2(np.where(within_T, ranks_T, 1) + 1), 0.0)


def metrics_of(ranks: Mapping[str, NDArray[Any]], chosen: NDArray[np.int64]) -> dict[str, float]:
    """`masked/NDCG@10` and the others, of some of the tested users."""
    return {
        f"{protocol}/{name}@{k}": float(gains(ranks[protocol][chosen], name, k).mean())
        for protocol in PROTOCOLS
        for name in ("HR", "NDCG")
        for k in CUTOFFS
    }


def user_groups(ranks: Mapping[str, NDArray[Any]], values_T: NDArray[Any]) -> list[dict[str, Any]]:
    """Equal groups of users by a number of each, rising, and their metrics.

    Args:
        ranks: of the tested users, by protocol.
        values_T: by what they are grouped.

    Returns:
        For each group `users`, the range `from` … `to` of the numbers, and `metrics`.
    """
    return [
        {"users": len(chosen), **value_range(values_T[chosen]), "metrics": metrics_of(ranks, chosen)}
        for chosen in equal_groups(values_T, USER_GROUPS)
    ]


def item_groups(values_I: NDArray[Any], popularity_I: NDArray[Any]) -> list[dict[str, Any]]:
    """Equal groups of items by their popularity, rising, and the mean and standard deviation of a number of each.

    Both arrays have no row for padding.
    """
    return [
        {
            "items": len(chosen),
            **value_range(popularity_I[chosen]),
            "mean": float(values_I[chosen].mean()),
            "deviation": float(values_I[chosen].std()),
        }
        for chosen in equal_groups(popularity_I, ITEM_GROUPS)
    ]


def equal_groups(values: NDArray[Any], count: int) -> list[NDArray[np.int64]]:
    """Places of the smallest values, the next larger, and so on, in groups that differ by one in size at most.

    Equal values keep their order, so that the groups are the same for all methods.
    """
    return [each for each in np.array_split(np.argsort(values, kind="stable"), count) if len(each)]


def value_range(values: NDArray[Any]) -> dict[str, int]:
    return {"from": int(values.min()), "to": int(values.max())}

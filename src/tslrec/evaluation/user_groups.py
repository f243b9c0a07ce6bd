"""Metrics of groups of users or items of equal size, ordered by activity or by popularity.

A group is described by its size, its range and its means, so that nothing of the data themselves is published.

Shapes: T tested users, I items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tslrec.evaluation.protocols import CUTOFFS, PROTOCOLS

USER_GROUPS = 5
"""Number of groups of users."""
ITEM_GROUPS = 10
"""Number of groups of items."""

DEGREES = (1, 5, 21)
"""Where groups by degree begin after the first: an item's degree is how often it occurs in training parts."""


def degree_groups(degrees_T: NDArray[Any]) -> NDArray[np.uint8]:
    """The group of each item by its degree, from 0: never trained, 1 to 4, 5 to 20, more.

    Args:
        degrees_T: how often each item occurs in the training parts.
    """
    return np.searchsorted(DEGREES, degrees_T, side="right").astype(np.uint8)


def degree_labels() -> list[str]:
    """The ranges of the groups of `degree_groups`, as a chart names them."""
    ends = [each - 1 for each in DEGREES]
    middle = [f"{begin}–{end}" for begin, end in zip(DEGREES, ends[1:], strict=False)]
    return [f"{ends[0]}", *middle, f"{DEGREES[-1]} and more"]


def gains(ranks_T: NDArray[Any], name: str, k: int) -> NDArray[np.float64]:
    """The value of each rank in a metric, whose mean over users is the metric.

    Args:
        ranks_T: ranks of the targets, from 1.
        name: `HR` or `NDCG`.
        k: the metric's list length.
    """
    within_T = ranks_T <= k
    if name == "HR":
        return within_T.astype(np.float64)
    return np.where(within_T, 1 / np.log2(np.where(within_T, ranks_T, 1) + 1), 0.0)


def metrics_of(ranks: Mapping[str, NDArray[Any]], chosen: NDArray[np.int64]) -> dict[str, float]:
    """The paper's metrics under both protocols over some of the tested users, named like `masked/NDCG@10`.

    Args:
        ranks: of the tested users' targets, by protocol, `[T]` each.
        chosen: indices of tested users.
    """
    return {
        f"{protocol}/{name}@{k}": float(gains(ranks[protocol][chosen], name, k).mean())
        for protocol in PROTOCOLS
        for name in ("HR", "NDCG")
        for k in CUTOFFS
    }


def user_groups(ranks: Mapping[str, NDArray[Any]], values_T: NDArray[Any]) -> list[dict[str, Any]]:
    """Metrics of equal groups of users.

    Args:
        ranks: of the tested users' targets, by protocol, `[T]` each.
        values_T: the number of each user by which they are grouped.

    Returns:
        For each group, by rising numbers: `users`, its size; `from` and `to`, its least and largest number; `metrics`.
    """
    return [
        {"users": len(chosen), **value_range(values_T[chosen]), "metrics": metrics_of(ranks, chosen)}
        for chosen in equal_groups(values_T, USER_GROUPS)
    ]


def item_groups(values_I: NDArray[Any], popularity_I: NDArray[Any]) -> list[dict[str, Any]]:
    """Mean and standard deviation of a number of each item, in equal groups of items by popularity.

    Args:
        values_I: the numbers, without a row for padding.
        popularity_I: how often each item occurs, without a row for padding.

    Returns:
        For each group, by rising popularity: `items`, its size; `from` and `to`, its least and largest popularity;
        `mean` and `deviation` of the numbers.
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
    """Indices in groups by rising value; the sizes of the groups differ by at most one.

    Equal values keep their order, so that the groups are the same for all methods.

    Args:
        values: of users or items.
        count: number of groups; empty ones are left out.
    """
    return [each for each in np.array_split(np.argsort(values, kind="stable"), count) if len(each)]


def value_range(values: NDArray[Any]) -> dict[str, int]:
    """The least and the largest value, as `from` and `to`."""
    return {"from": int(values.min()), "to": int(values.max())}

"""The collaborative index (Hua et al. 2023): items that are bought together share the first tokens of their codes.

Shapes: R items in an order.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tslrec.stages.item_index.spectral import spectral_labels

if TYPE_CHECKING:
    from scipy.sparse import csr_array

DEEPEST = 8
"""Levels of clustering (as many as in Hua et al.); a group that is still too large below them is cut. Graphs of which
each clustering takes a few items off would give codes of hundreds of tokens."""

Code = tuple[int, ...]
"""An item's tokens, each a number below the number of tokens."""


class Tree(NamedTuple):
    """The codes that repeated clustering gives.

    Attributes:
        codes: of each item, in the order of the rows.
        splits: how many groups were split.
        cuts: how many of them were cut into consecutive groups, because the clustering left them whole or they were
            below the deepest level of clustering.
    """

    codes: list[Code]
    splits: int
    cuts: int


def collaborative_tree(adjacency_RR: csr_array, num_clusters: int, leaf_size: int, seed: int) -> Tree:
    """Clusters all items, and again each group with more than M of them, first in, first out (OpenP5, commit 7f11038).

    Each group has a token: the next of M numbers, counted over the whole tree, so that groups of one parent have
    different ones. The last token of an item is its place in a group of at most M items. Codes are distinct, because
    no parent has more than M groups: N ≤ M, and a group that is cut gives at most M.

    Args:
        adjacency_RR: co-occurrences of the items.
        num_clusters: N, from 2 to M.
        leaf_size: M, both the largest group that is not split and the number of tokens.
        seed: see `spectral_labels`.
    """
    codes: list[Code] = [()] * adjacency_RR.shape[0]
    if not codes:
        return Tree(codes, 0, 0)
    next_token = splits = cuts = 0
    waiting: deque[tuple[NDArray[np.int64], Code]] = deque([(np.arange(len(codes)), ())])
    while waiting:
        members, prefix = waiting.popleft()
        splits += 1
        clustered = len(prefix) < DEEPEST
        parts = groups_of(spectral_labels(adjacency_RR[members][:, members], num_clusters, seed)) if clustered else []
        if len(parts) < 2:
            cuts += 1
            parts = consecutive(len(members), leaf_size)
        for part in parts:
            group, code = members[part], (*prefix, next_token % leaf_size)
            next_token += 1
            if len(group) > leaf_size:
                waiting.append((group, code))
                continue
            for place, row in enumerate(group.tolist()):
                codes[row] = (*code, place)
    return Tree(codes, splits, cuts)


def groups_of(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The places of each label's members, in the order of the labels' first appearance."""
    found, first = np.unique(labels, return_index=True)
    return [np.flatnonzero(labels == found[k]) for k in np.argsort(first)]


def consecutive(size: int, leaf_size: int) -> list[NDArray[np.int64]]:
    """Places 0…size − 1 in at most M consecutive groups: of M members, or of more where M groups would not do."""
    each = max(leaf_size, -(-size // leaf_size))
    return np.split(np.arange(size), range(each, size, each))


def codes_by_item(
    num_items: int, order_R: NDArray[np.int64], tree: Tree, others: NDArray[np.int64]
) -> tuple[Code, ...]:
    """The code of each item `[I + 1]`; an item that was never trained on has one token, its place among those.

    Args:
        num_items: I.
        order_R: the item of each row of the tree.
        tree: the codes of the others, of two tokens or more.
        others: the never-trained items.
    """
    codes: list[Code] = [()] * (num_items + 1)
    for item, code in zip(order_R.tolist(), tree.codes, strict=True):
        codes[item] = code
    for place, item in enumerate(others.tolist()):
        codes[item] = (place,)
    return tuple(codes)

"""One trie of all items' codes for all users.

A node's items are consecutive in the order of the codes, so the number of a user's seen items below any node is a
difference of two places in a sorted list. A masked user may enter a node that has more leaves than seen ones: no user
needs a trie of its own (RIVALS.md 0).

Shapes: I items, X nodes (the root is node 0), U users, C candidates of a user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.system.errors import UserError

ENDED = -1
"""Stands behind a code's last token."""


@dataclass(frozen=True)
class Trie:
    """Nodes in the order of their depth, then of their codes. So a node's children are consecutive, in CSR form.

    Attributes:
        first_child_X: int64 `[X + 1]`, a node's first child; its children end where the next node's begin.
        token_X: int64, the token that leads to the node; 0 for the root.
        first_leaf_X: int64, place of the node's first item in the order of the codes.
        num_leaves_X: int64, items below the node, itself included.
        item_X: int64, the item whose code ends at the node; 0 where none does.
        place_I: int64 `[I + 1]`, each item's place in the order of the codes; row 0 is no item.
        depth: tokens of the longest code.
    """

    first_child_X: Tensor
    token_X: Tensor
    first_leaf_X: Tensor
    num_leaves_X: Tensor
    item_X: Tensor
    place_I: Tensor
    depth: int

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.place_I) - 1

    def to(self, device: torch.device) -> Trie:
        """A copy on another device."""
        moved: dict[str, Any] = {name: each.to(device) for name, each in vars(self).items() if isinstance(each, Tensor)}
        return replace(self, **moved)

    def seen(self, items: Sequence[NDArray[np.int64]]) -> Tensor:
        """What `num_seen` looks up: each user's seen items.

        Args:
            items: item numbers per user, in any order, possibly with repeats.

        Returns:
            int64, sorted: user × I + the item's place.
        """
        users = np.repeat(np.arange(len(items)), [len(each) for each in items])
        places = self.place_I.cpu().numpy()[np.concatenate([np.zeros(0, np.int64), *items])]
        return torch.from_numpy(np.unique(users * self.num_items + places)).to(self.place_I.device)

    def num_seen(self, seen: Tensor, users: Tensor, nodes: Tensor) -> Tensor:
        """How many of a user's seen items are below a node.

        Args:
            seen: from `seen`.
            users: int64, any shape.
            nodes: int64, the same shape.
        """
        first = users * self.num_items + self.first_leaf_X[nodes]
        ends: Tensor = torch.searchsorted(seen, first + self.num_leaves_X[nodes])
        return ends - torch.searchsorted(seen, first)


def build_trie(codes: Sequence[tuple[int, ...]]) -> Trie:
    """Builds the trie.

    Args:
        codes: token ids by item number, each ending in `</s>`; number 0 is no item, its code is not read.

    Raises:
        UserError: if two items have the same code, or one's code begins another's.
    """
    num_items = len(codes) - 1
    lengths_I = np.array([len(code) for code in codes[1:]], dtype=np.int64)
    if num_items < 1 or lengths_I.min() < 1:
        raise ValueError("a trie needs one item or more, and each of them a code")
    depth = int(lengths_I.max())
    codes_ID = np.full((num_items, depth), ENDED, dtype=np.int64)
    codes_ID[np.arange(depth) < lengths_I[:, None]] = np.concatenate([np.asarray(code) for code in codes[1:]])
    order_I = np.lexsort(codes_ID.T[::-1])
    codes_ID, lengths_I = codes_ID[order_I], lengths_I[order_I]
    # new_ID: whether a prefix of an item differs from that of the item before, so that a node begins.
    differs_ID = np.ones((num_items, depth), dtype=bool)
    differs_ID[1:] = np.logical_or.accumulate(codes_ID[1:] != codes_ID[:-1], axis=1)
    within_ID = np.arange(depth) < lengths_I[:, None]
    refuse_shared(differs_ID, lengths_I, order_I + 1)
    new_ID = differs_ID & within_ID
    # Each node's first item, level by level; the root's is the first of all.
    levels = [np.zeros(1, np.int64), *(np.flatnonzero(new_ID[:, d]) for d in range(depth))]
    starts = np.cumsum([0, *map(len, levels)])
    token_X, item_X, num_leaves_X = (np.zeros(starts[-1], dtype=np.int64) for _ in range(3))
    num_leaves_X[0] = num_items
    num_children_X = np.zeros(starts[-1], dtype=np.int64)
    parent_I = np.zeros(num_items, dtype=np.int64)
    for d in range(depth):
        here = np.flatnonzero(within_ID[:, d])
        node_I = starts[d + 1] + np.cumsum(new_ID[:, d]) - 1
        firsts = levels[d + 1]
        token_X[node_I[firsts]] = codes_ID[firsts, d]
        np.add.at(num_leaves_X, node_I[here], 1)
        np.add.at(num_children_X, parent_I[firsts], 1)
        last = np.flatnonzero(lengths_I == d + 1)
        item_X[node_I[last]] = order_I[last] + 1
        parent_I = node_I
    place_I = np.zeros(num_items + 1, dtype=np.int64)
    place_I[order_I + 1] = np.arange(num_items)
    # Nodes are numbered level by level, so all children of all nodes before a node come before its own.
    first_child_X = 1 + np.concatenate([[0], np.cumsum(num_children_X)])
    return Trie(
        torch.from_numpy(first_child_X),
        torch.from_numpy(token_X),
        torch.from_numpy(np.concatenate(levels)),
        torch.from_numpy(num_leaves_X),
        torch.from_numpy(item_X),
        torch.from_numpy(place_I),
        depth,
    )


def refuse_shared(differs_ID: NDArray[np.bool_], lengths_I: NDArray[np.int64], items_I: NDArray[np.int64]) -> None:
    """Refuses codes that do not tell items apart.

    Args:
        differs_ID: whether a prefix of a code differs from that of the code before it.
        lengths_I: lengths of the codes, in their order.
        items_I: the items, in that order.

    Raises:
        UserError: if a code is equal to another or begins it.
    """
    shorter_I = np.minimum(lengths_I[1:], lengths_I[:-1])
    same = np.flatnonzero(~differs_ID[1:][np.arange(len(shorter_I)), shorter_I - 1])
    if len(same):
        first, second = sorted(items_I[same[0] : same[0] + 2].tolist())
        raise UserError(
            f"the item index: items {first} and {second} have codes that are equal or begin one another, and so have "
            f"{len(same) - 1} more pairs; give each item a code of its own"
        )

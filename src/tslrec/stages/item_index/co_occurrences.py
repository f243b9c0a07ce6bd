"""How often two items occur in one user's training part: the graph whose spectrum groups the items.

Shapes: U users, R items in an order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tslrec.data.interactions import Interactions
from tslrec.data.windows import index_in_group

if TYPE_CHECKING:
    from scipy.sparse import csr_array

PAIRS_AT_A_TIME = 2_000_000
"""Ordered pairs of positions that are counted at once."""


def co_occurrences(interactions: Interactions, order_R: NDArray[np.int64], counted: str) -> csr_array:
    """Counts the pairs of items in training parts, as a sparse symmetric float64 matrix `[R, R]`.

    Args:
        interactions: the data set.
        order_R: the item of each row.
        counted: `pairs`: see `all_pairs`; `rarer_order`: see `rarer_orders`.
    """
    return all_pairs(interactions, order_R) if counted == "pairs" else rarer_orders(interactions, order_R)


def all_pairs(interactions: Interactions, order_R: NDArray[np.int64]) -> csr_array:
    """Every pair of positions of a training part counts for both of its items (OpenP5, commit 7f11038).

    A user with item i at a positions and item j at b positions has a · b such pairs, so that the matrix is a product of
    the users' counts with themselves. On the diagonal, a · (a − 1).
    """
    from scipy.sparse import csr_array, diags_array

    rows_I = row_of_item(interactions, order_R)
    users_N = np.repeat(np.arange(interactions.num_users), interactions.lengths)[interactions.is_training_N]
    rows_N = rows_I[interactions.items[interactions.is_training_N]]
    shape = interactions.num_users, len(order_R)
    counts_UR = csr_array((np.ones(len(rows_N)), (users_N, rows_N)), shape=shape)
    counts_UR.sum_duplicates()
    positions_R = np.bincount(rows_N, minlength=len(order_R)).astype(np.float64)
    found = csr_array(counts_UR.T @ counts_UR - diags_array(positions_R))
    found.eliminate_zeros()
    found.sort_indices()
    return found


def rarer_orders(interactions: Interactions, order_R: NDArray[np.int64]) -> csr_array:
    """As Hua et al. count (LLM-RecSys-ID, commit 2200ad9): ordered pairs, of whose two orders the rarer one stays.

    Their code writes the counts of ordered pairs into a symmetric matrix, the most frequent first, so that the rarer
    order of two items overwrites the more frequent one. Where only one order occurs, its count stays.
    """
    from scipy.sparse import csr_array

    rows_I, size = row_of_item(interactions, order_R), len(order_R)
    ordered = csr_array((size, size))
    for first_N, second_N in ordered_pairs(interactions):
        rows = rows_I[interactions.items[first_N]], rows_I[interactions.items[second_N]]
        ordered = ordered + csr_array((np.ones(len(first_N)), rows), shape=(size, size))
    turned = csr_array(ordered.T)
    both = ordered.minimum(turned)
    # The larger of two counts, and the smaller one where both orders occur.
    found = csr_array(ordered.maximum(turned) - (ordered.maximum(turned) - both).multiply(both > 0))
    found.eliminate_zeros()
    found.sort_indices()
    return found


def ordered_pairs(interactions: Interactions) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Every pair of positions of a training part, the earlier one first, in several portions.

    Returns:
        Of each portion the earlier and the later positions in the flat array of interactions.
    """
    lengths_U = interactions.train_lengths
    position_N = np.repeat(interactions.offsets[:-1], lengths_U) + index_in_group(lengths_U)
    following_N = np.repeat(lengths_U, lengths_U) - index_in_group(lengths_U) - 1
    portion_N = np.cumsum(following_N) // PAIRS_AT_A_TIME
    found = []
    for part in np.split(np.arange(len(position_N)), np.flatnonzero(np.diff(portion_N)) + 1):
        first = np.repeat(position_N[part], following_N[part])
        found.append((first, first + 1 + index_in_group(following_N[part])))
    return found


def row_of_item(interactions: Interactions, order_R: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of each item `[I + 1]`; meaningless for one that is not in the order."""
    rows_I = np.zeros(interactions.num_items + 1, dtype=np.int64)
    rows_I[order_R] = np.arange(len(order_R))
    return rows_I

"""Leaves out what adds nothing to scores: columns in which no user of a batch has a number.

The user vector of a recommender such as EASE has a column for each item, of which a batch of users fills few.

Shapes: B users, I items (row 0 of the table is padding), D size of a user vector, N columns that are used.
"""

from __future__ import annotations

from torch import Tensor

WIDE = 2048
"""Vectors of fewer numbers are left as they are: it would cost more to look."""


def with_used_columns(user_BD: Tensor, table_ID: Tensor) -> tuple[Tensor, Tensor]:
    """User vectors and item table without the columns in which all user vectors are zero.

    Both are returned as they are, bit for bit, where the vectors are not wide, or half of the columns are used.

    Args:
        user_BD: user vectors.
        table_ID: the table that scores the items.

    Returns:
        `[B, N]` and `[I + 1, N]`, with the same dot products.
    """
    size = user_BD.shape[1]
    if size < WIDE:
        return user_BD, table_ID
    columns_N = (user_BD != 0).any(dim=0).nonzero()[:, 0]
    if len(columns_N) > size // 2:
        return user_BD, table_ID
    return user_BD.index_select(1, columns_N), table_ID.index_select(1, columns_N)

"""The two factors of a score in one type, where training has left them in two.

Shapes: B users, R rows of an item table, D size of a user vector.
"""

from __future__ import annotations

import torch
from torch import Tensor


def in_one_type(user_BD: Tensor, table_RD: Tensor) -> tuple[Tensor, Tensor]:
    """User vectors and an item table in the wider of their two types.

    Args:
        user_BD: user vectors.
        table_RD: the table, with padding or without.
    """
    dtype = torch.promote_types(user_BD.dtype, table_RD.dtype)
    return user_BD.to(dtype), table_RD.to(dtype)

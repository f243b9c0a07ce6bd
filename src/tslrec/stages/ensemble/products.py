"""Scores of all items, without the products with zeros of vectors that hold hardly anything else.

A user vector of EASE says which items a user had: a few numbers among as many zeros as there are items. Their rows of
the table, summed, are the scores.

Shapes: B users, I items (row 0 of a table is padding), E size of a user vector, S numbers that are not 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SPARSE = 0.02
"""Vectors with a smaller share of numbers that are not 0 are multiplied by these alone."""


class Product:
    """The scores of all items by user vectors.

    Args:
        table_IE: the table that scores items. If it has no more rows than columns, a transposed copy of it is held, for
            vectors that are nearly all zeros.
    """

    def __init__(self, table_IE: Tensor) -> None:
        self.items_IE = table_IE[1:]
        self.is_wide = self.items_IE.shape[1] >= len(self.items_IE)
        self.columns_EI = self.items_IE.T.contiguous() if self.is_wide else None

    def __call__(self, user_BE: Tensor) -> Tensor:
        """The scores `[B, I]`, padding left out.

        Args:
            user_BE: user vectors in the type of the table.
        """
        if self.columns_EI is not None:
            rows_S, columns_S = user_BE.nonzero(as_tuple=True)
            if len(rows_S) < SPARSE * user_BE.numel():
                begins_B = torch.searchsorted(rows_S, torch.arange(len(user_BE)))
                factors_S = user_BE[rows_S, columns_S]
                scores_BI: Tensor = F.embedding_bag(
                    columns_S, self.columns_EI, begins_B, mode="sum", per_sample_weights=factors_S
                )
                return scores_BI
        return user_BE @ self.items_IE.T

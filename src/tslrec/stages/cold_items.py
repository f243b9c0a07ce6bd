"""The rows of cold items: items without an interaction in the training part, which no training step ever pulled at.

Such a row is where it was initialised, pushed away by a softmax in which it was only ever a wrong answer. A recommender
that trains on gives it an explicit row instead:

- where an item is nothing but its own vector, the mean of the rows of all trained items: the average item;
- in a fusion, what is known of the item: its row with an id embedding of zero, no longer than the mean trained row, so
  that an item that nobody has ever bought does not win by its length.

Shapes: I items (row 0 of a table is padding), R rows, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mean_row(table_ID: Tensor, cold_I: Tensor) -> Tensor:
    """The mean of the rows of all items that are not cold, `[D]`.

    Args:
        table_ID: `[I + 1, D]`; also `[I + 1]`, of which the mean is a number.
        cold_I: which items are cold, bool `[I + 1]`; at least one is not.
    """
    return table_ID[1:][~cold_I[1:]].double().mean(dim=0).to(table_ID.dtype)


def damped_rows(table_ID: Tensor, cold_I: Tensor) -> Tensor:
    """The rows of the cold items, `[R, D]`, none longer than the mean length of the rows of the other items.

    Args:
        table_ID: `[I + 1, D]`.
        cold_I: which items are cold, bool `[I + 1]`; at least one is not.
    """
    lengths_I = torch.linalg.vector_norm(table_ID, dim=1)
    longest = lengths_I[1:][~cold_I[1:]].mean()
    factors_R = (longest / lengths_I[cold_I].clamp_min(torch.finfo(table_ID.dtype).tiny)).clamp(max=1)
    return table_ID[cold_I] * factors_R[:, None]

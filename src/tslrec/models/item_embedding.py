"""The item embedding that every backbone is built around: a vector for each item, used as input and for scoring.

Shapes: I items (row 0 of a table is padding), R some of them, N new items, D hidden size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ItemEmbedding(nn.Module, ABC):
    """A module that gives an item table `[I + 1, D]`. Fusions are item embeddings, so backbones need not know them.

    A training step computes `table()` once and uses it for the inputs and for the softmax.

    Args:
        num_items: I; padding is not counted.
        hidden_size: D.
    """

    def __init__(self, num_items: int, hidden_size: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.hidden_size = hidden_size

    @abstractmethod
    def table(self) -> Tensor:
        """The vectors of all items, `[I + 1, D]`, with gradient; row 0 is padding and zero."""

    def rows(self, items_R: Tensor) -> Tensor:
        """The vectors of some items, `[R, D]`, with gradient: `table()[items_R]`.

        A subclass can override it to compute only these rows.

        Args:
            items_R: distinct item ids.
        """
        return self.table()[items_R]

    def id_shares(self) -> Tensor | None:
        """Weight of the id embedding in each item's vector, `[I + 1]`, from 0 to 1; None if there is no such weight."""
        return None


class IdEmbedding(ItemEmbedding):
    """A trainable vector per item and nothing else: the ID-only paradigm.

    The vectors are initialised from a normal distribution with mean 0 and standard deviation 0.02; padding is zero.
    """

    def __init__(self, num_items: int, hidden_size: int) -> None:
        super().__init__(num_items, hidden_size)
        self.weight = nn.Parameter(torch.empty(num_items + 1, hidden_size))
        nn.init.normal_(self.weight, std=0.02)
        with torch.no_grad():
            self.weight[0] = 0

    def table(self) -> Tensor:
        return self.weight

    def rows(self, items_R: Tensor) -> Tensor:
        # The gradient is dense, and Adam updates all rows: that is exact, and cheaper than the backbone even with a
        # million rows.
        return F.embedding(items_R, self.weight)


class GrownEmbedding(ItemEmbedding):
    """Vectors of which only those of new items are trained; the others stay as they are, bit for bit.

    Args:
        table_ID: the vectors of all items `[I + 1, D]`; those of new items are where training begins.
        new_N: ids of the new items, int64, at least one.
    """

    fixed_ID: Tensor
    new_N: Tensor

    def __init__(self, table_ID: Tensor, new_N: Tensor) -> None:
        super().__init__(len(table_ID) - 1, table_ID.shape[1])
        self.register_buffer("fixed_ID", table_ID.detach().clone(), persistent=False)
        self.register_buffer("new_N", new_N, persistent=False)
        self.weight = nn.Parameter(table_ID.detach()[new_N])

    def table(self) -> Tensor:
        return self.fixed_ID.index_copy(0, self.new_N, self.weight)


class FixedTable(ItemEmbedding):
    """A finished item table that does not change: of a recommender that is used, not trained.

    Args:
        table_ID: `[I + 1, D]`; row 0 is padding.
    """

    table_ID: Tensor

    def __init__(self, table_ID: Tensor) -> None:
        super().__init__(len(table_ID) - 1, table_ID.shape[1])
        self.register_buffer("table_ID", table_ID, persistent=False)

    def table(self) -> Tensor:
        return self.table_ID

    def rows(self, items_R: Tensor) -> Tensor:
        return self.table_ID[items_R]

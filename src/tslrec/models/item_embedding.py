"""The item embedding that every backbone is built around: a vector for each item, used as input and for scoring.

Shapes: I items (row 0 of a table is padding), R some of them, D hidden size.
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

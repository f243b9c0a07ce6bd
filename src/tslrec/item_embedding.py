"""What a backbone is built around: something that gives each item a vector, and the whole table for scoring.

Shapes: I items (row 0 is padding), D hidden size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ItemEmbedding(nn.Module, ABC):
    """An item table `[I + 1, D]`; fusions are item embeddings too, so no backbone knows about them.

    A training step computes `table()` once and uses it for the inputs and, but for a subclass that has two, for the
    softmax.

    Attributes:
        num_items: I, padding not counted.
        hidden_size: D.
        padding_row: whether row 0 is a vector like any other where padding is looked up, and a candidate of the
            softmax that trains it, as in RecBole. False, the default, is what is right: the row stays zero.
    """

    def __init__(self, num_items: int, hidden_size: int, padding_row: bool = False) -> None:
        super().__init__()
        self.num_items = num_items
        self.hidden_size = hidden_size
        self.padding_row = padding_row

    @abstractmethod
    def table(self) -> Tensor:
        """The vectors of all items, `[I + 1, D]`, with gradient."""

    def rows(self, items_R: Tensor) -> Tensor:
        """`table()[items_R]` of distinct items, `[R, D]`, with gradient; a subclass can spare the other rows' work."""
        return self.table()[items_R]

    def output_table(self, table_ID: Tensor) -> Tensor:
        """The vectors by which items are scored, `[I + 1, D]`: those of the inputs, which are given."""
        return table_ID

    def output_rows(self, items_R: Tensor, rows_RD: Tensor) -> Tensor:
        """`output_table(table_ID)[items_R]`, where `rows_RD` are `rows(items_R)`."""
        return rows_RD

    def id_shares(self) -> Tensor | None:
        """How much of each item's vector is its own free one, `[I + 1]`, from 0 to 1; None where nothing is weighed."""
        return None


class IdEmbedding(ItemEmbedding):
    """A free vector per item: the ID-only paradigm. Initialised N(0, 0.02)."""

    def __init__(self, num_items: int, hidden_size: int, padding_row: bool = False) -> None:
        super().__init__(num_items, hidden_size, padding_row)
        self.weight = nn.Parameter(torch.empty(num_items + 1, hidden_size))
        nn.init.normal_(self.weight, std=0.02)
        if not padding_row:
            with torch.no_grad():
                self.weight[0] = 0

    def table(self) -> Tensor:
        return self.weight

    def rows(self, items_R: Tensor) -> Tensor:
        # A dense gradient, and Adam over all rows: exact, and for a million rows still cheaper than the backbone.
        return F.embedding(items_R, self.weight)

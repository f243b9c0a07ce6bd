"""What every backbone is: a module that turns item sequences into user vectors, built around an item embedding.

Shapes: B sequences, L positions, D hidden size, I items (row 0 of a table is padding), E size of a user vector (D where
it scores the items by the item table).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tslrec.interactions import PADDING
from tslrec.item_embedding import ItemEmbedding


class Packing(NamedTuple):
    """Says of rows that hold several sequences, side by side, what is where.

    Attributes:
        sequences_BL: int64, which of its row's sequences a position is of; -1 padding.
        positions_BL: int64, the place in its own sequence, from 0.
    """

    sequences_BL: Tensor
    positions_BL: Tensor


class Backbone(nn.Module, ABC):
    """A sequential recommender without its item table, which is injected.

    Attributes:
        causal: whether the state at a position depends on nothing after it, so that one pass gives the user vector
            after each prefix (`CausalBackbone`).
        fixed_window: whether it computes `max_len` positions however few are items.
        draws_by_dropout: whether all that it draws in training is drawn by `Dropout`, so that several threads can each
            compute a micro-batch.
        item_embedding: any `ItemEmbedding`, plain or fused.
        max_len: the longest input, in items.
        own_output_IE: a table of its own by which user vectors score the items, `[I + 1, E]`; None where that is the
            item embedding's.
    """

    causal: ClassVar[bool] = False
    fixed_window: ClassVar[bool] = False
    draws_by_dropout: ClassVar[bool] = False

    def __init__(self, item_embedding: ItemEmbedding, max_len: int) -> None:
        super().__init__()
        self.item_embedding = item_embedding
        self.max_len = max_len
        self.own_output_IE: nn.Parameter | None = None

    @property
    def hidden_size(self) -> int:
        return self.item_embedding.hidden_size

    def encoder_parameters(self) -> list[nn.Parameter]:
        """What user vectors are made of beside the item embedding."""
        of_items = {id(self.own_output_IE), *(id(parameter) for parameter in self.item_embedding.parameters())}
        return [each for each in self.parameters() if each.requires_grad and id(each) not in of_items]

    def embed(self, items_BL: Tensor, table_ID: Tensor | None) -> Tensor:
        """The vectors of items, `[B, L, D]`; looking padding up never trains its row, as in the references."""
        return F.embedding(items_BL, self.table(table_ID), padding_idx=PADDING)

    def table(self, table_ID: Tensor | None) -> Tensor:
        return self.item_embedding.table() if table_ID is None else table_ID

    def output_table(self, table_ID: Tensor) -> Tensor:
        """What user vectors score the items by, `[I + 1, E]`: the item table, in the end, or a table of its own."""
        if self.own_output_IE is not None:
            return self.own_output_IE
        return self.item_embedding.output_table(table_ID)

    def output_rows(self, rows_R: Tensor, table_RD: Tensor) -> Tensor:
        """`output_table(table_ID)[rows_R]`, `[R, E]`.

        Args:
            rows_R: items.
            table_RD: their rows of the item table.
        """
        if self.own_output_IE is not None:
            return F.embedding(rows_R, self.own_output_IE)
        return self.item_embedding.output_rows(rows_R, table_RD)

    @abstractmethod
    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        """The user vector after the last item, `[B, E]`.

        Args:
            items_BL: item ids, int64, padded with 0 on the right; `L <= max_len`.
            lengths_B: how many of them are items, 1 or more.
            users_B: user ids; most backbones do not look at them.
            table_ID: the item table where the caller has it already; `item_embedding.table()` otherwise.
        """

    def regularization(self, table_ID: Tensor | None = None) -> Tensor | float:
        """What the backbone adds to the loss."""
        return 0.0


class CausalBackbone(Backbone):
    """A backbone that can give every position at once.

    Attributes:
        packs: whether it can do so for rows that hold several sequences (`Packing`); where it can, a step is one pass.
    """

    causal = True
    packs: ClassVar[bool] = False

    @abstractmethod
    def all_positions(
        self,
        items_BL: Tensor,
        lengths_B: Tensor,
        users_B: Tensor,
        table_ID: Tensor | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        """The user vector after each item, `[B, L, D]`; what stands at padded positions means nothing.

        Args:
            items_BL: see `forward`.
            lengths_B: likewise; of packed rows it means nothing.
            users_B: as `lengths_B`.
            table_ID: see `forward`.
            packing: given only to a backbone that `packs`, where the rows hold several sequences.
        """


def last_position(hidden_BLD: Tensor, lengths_B: Tensor) -> Tensor:
    """The state at each sequence's last item, `[B, D]`."""
    return hidden_BLD[torch.arange(len(hidden_BLD), device=hidden_BLD.device), lengths_B - 1]

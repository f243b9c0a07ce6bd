"""The contract of a backbone: a module around an item embedding that turns item sequences into user vectors.

Shapes: B sequences, L positions, D hidden size, I items (row 0 of a table is padding), R some of them, U users, E size
of a user vector (equal to D, unless the backbone has an output table of its own, or a bias per item).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tslrec.data.interactions import PADDING
from tslrec.data.masking import Masking
from tslrec.data.packing import Packing
from tslrec.models.item_embedding import ItemEmbedding


class Backbone(nn.Module, ABC):
    """A sequential recommender around an item embedding that it is given.

    A user's score of an item is the dot product of the user vector with the item's row of the output table.

    Attributes:
        causal: whether the state at a position depends on no later position, so that one pass gives the user vector
            after each prefix (`CausalBackbone`).
        fixed_window: whether the backbone always computes `max_len` positions, even for shorter sequences.
        draws_by_dropout: whether `Dropout` makes all random draws in training, so that several threads can each compute
            a micro-batch with a generator of their own.
        item_embedding: any `ItemEmbedding`, plain or fused.
        max_len: the longest input, in items.
        own_output_IE: a trainable output table `[I + 1, E]` that is separate from the item embedding; None if items are
            scored by the item table.
        output_bias_I: a trainable bias per item `[I + 1]`, which is added to the score by the item table: the last
            column of the output table, for which user vectors end with 1. None in most backbones.
        user_embedding: a trainable vector per user `[U, D]`; None in most backbones.
        masking: how the training rows of a `MaskedBackbone` are masked; None: it is trained on the next item.
        pairwise: whether it is trained by BPR, which compares each target with one other item, instead of by a softmax.
    """

    causal: ClassVar[bool] = False
    fixed_window: ClassVar[bool] = False
    draws_by_dropout: ClassVar[bool] = False

    def __init__(self, item_embedding: ItemEmbedding, max_len: int) -> None:
        super().__init__()
        self.item_embedding = item_embedding
        self.max_len = max_len
        self.own_output_IE: nn.Parameter | None = None
        self.output_bias_I: nn.Parameter | None = None
        self.user_embedding: nn.Parameter | None = None
        self.masking: Masking | None = None
        self.pairwise = False

    @property
    def hidden_size(self) -> int:
        """D."""
        return self.item_embedding.hidden_size

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Trainable parameters other than those of the item embedding and of the output table."""
        of_output = {id(self.own_output_IE), id(self.output_bias_I)}
        of_items = {*of_output, *(id(parameter) for parameter in self.item_embedding.parameters())}
        return [each for each in self.parameters() if each.requires_grad and id(each) not in of_items]

    def embed(self, items_BL: Tensor, table_ID: Tensor | None) -> Tensor:
        """Looks up the vectors of items, `[B, L, D]`.

        Padding gets no gradient, as in the reference implementations.

        Args:
            items_BL: item ids.
            table_ID: see `forward`.
        """
        return F.embedding(items_BL, self.table(table_ID), padding_idx=PADDING)

    def table(self, table_ID: Tensor | None) -> Tensor:
        """The given item table, or else the item embedding's, `[I + 1, D]`."""
        return self.item_embedding.table() if table_ID is None else table_ID

    def output_table(self, table_ID: Tensor) -> Tensor:
        """The table whose rows user vectors are multiplied with to score the items, `[I + 1, E]`.

        Args:
            table_ID: the item table, which is returned unless the backbone has an output table or biases of its own.
        """
        if self.own_output_IE is not None:
            return self.own_output_IE
        if self.output_bias_I is not None:
            return torch.cat([table_ID, self.output_bias_I[:, None].to(table_ID.dtype)], dim=1)
        return table_ID

    def output_rows(self, rows_R: Tensor, table_RD: Tensor) -> Tensor:
        """Some rows of the output table, `[R, E]`: `output_table(table_ID)[rows_R]`.

        Args:
            rows_R: item ids.
            table_RD: the rows of the item table for these items.
        """
        if self.own_output_IE is not None:
            return F.embedding(rows_R, self.own_output_IE)
        if self.output_bias_I is not None:
            return torch.cat([table_RD, self.output_bias_I[rows_R, None].to(table_RD.dtype)], dim=1)
        return table_RD

    @abstractmethod
    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        """The user vector after each sequence's last item, `[B, E]`.

        Args:
            items_BL: item ids, int64, padded with 0 on the right; `L <= max_len`.
            lengths_B: number of items of each sequence, 1 or more.
            users_B: user ids; most backbones ignore them.
            table_ID: the item table, if the caller has computed it already; None: `item_embedding.table()`.
        """

    def regularization(self, table_ID: Tensor | None = None) -> Tensor | float:
        """A penalty that is added to the loss; 0 unless a backbone overrides it.

        Args:
            table_ID: see `forward`.
        """
        return 0.0


class PositionBackbone(Backbone):
    """A backbone that gives a state at each position in one pass.

    Attributes:
        packs: whether it can do so for rows that hold several sequences (`Packing`); then a whole optimizer step is one
            pass.
    """

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
        """The state at each position, `[B, L, E]`, in the space of user vectors. Padded positions have no meaning.

        Args:
            items_BL: see `forward`.
            lengths_B: see `forward`; without meaning for packed rows.
            users_B: see `forward`; without meaning for packed rows.
            table_ID: see `forward`.
            packing: given if the rows hold several sequences, which only a backbone that `packs` supports.
        """


class CausalBackbone(PositionBackbone):
    """A backbone that computes the user vectors after all items of a sequence in one pass: its states are these."""

    causal = True


class MaskedBackbone(PositionBackbone):
    """A backbone that sees both sides of a position and is trained to tell the items that are masked (`masking`).

    In its `all_positions` a 0 among a sequence's items is a masked item, and the state there tells which item it was:
    the item embedding has no row for a mask, since it may be a fusion. It takes packed rows. `forward` still gives the
    user vector after the last item.
    """

    packs = True


def last_position(hidden_BLD: Tensor, lengths_B: Tensor) -> Tensor:
    """The state at each sequence's last item, `[B, D]`."""
    # `shape[0]` instead of `len`: an exporter takes a `len` for a constant.
    return hidden_BLD[torch.arange(hidden_BLD.shape[0], device=hidden_BLD.device), lengths_B - 1]

"""Packs many short examples into few rows, so that almost no token of a step is padding.

Users' histories differ in length by a factor of fifty, and in a padded batch one long user makes every other row as
long. Here several examples share a row, and each example attends only to the shared prefix and to itself.

Shapes: B examples, R rows, T tokens of a row, J tokens of the response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.packing import pack_rows
from tslrec.llm.item_input import EMBEDDINGS, ItemInput

ROW_LENGTH = 64
"""Target length of a row, in tokens. Attention costs its square: on two CPU cores, 52 to 96 were equally fast and 256
a third slower."""

PADDING_TOKEN = 0
"""Value in `PackedExamples.tokens_RT` that stands for padding."""

NO_EXAMPLE = -1
"""Value in `PackedExamples.examples_RT` of padding."""


class PackedExamples(NamedTuple):
    """The tokens after the instruction (items and response) of a batch of examples, packed into rows.

    Attributes:
        tokens_RT: int64; a positive number is an item id, 0 is padding, -1 - j is the j-th token of the response, and
            -1 - J - v is the language model's token v, a part of a title.
        examples_RT: int64; the example that the token belongs to, from 0; `NO_EXAMPLE` for padding.
        positions_RT: int64; the token's position in its own example, from 0.
        last_B: int64; index of each example's last token in the flattened rows.
    """

    tokens_RT: Tensor
    examples_RT: Tensor
    positions_RT: Tensor
    last_B: Tensor

    def to(self, device: torch.device) -> PackedExamples:
        """A copy on another device; from pinned memory to a GPU, the copy runs beside the program."""
        return PackedExamples(*(each.to(device, non_blocking=True) for each in self))

    @property
    def num_tokens(self) -> int:
        """Number of tokens that are not padding."""
        return int((self.tokens_RT != PADDING_TOKEN).sum())


@dataclass(frozen=True)
class Packer:
    """Builds `PackedExamples`; an example is its items, directly followed by the response.

    Attributes:
        num_response: tokens of the response.
        row_length: approximate tokens of a row; a row is never shorter than the longest example. None gives each
            example a row of its own.
        items: what an item is made of.
    """

    num_response: int
    row_length: int | None = ROW_LENGTH
    items: ItemInput = EMBEDDINGS

    def of_items(self, items_N: NDArray[np.int64]) -> Packer:
        """The packer of a table of items in another order (`ItemInput.of_items`)."""
        return replace(self, items=self.items.of_items(items_N))

    def __call__(self, histories: Sequence[NDArray[np.int64]]) -> PackedExamples:
        """Packs histories.

        Args:
            histories: one per example: item ids (1 or more) in time order, possibly none.

        Returns:
            The packed examples; without histories they have no rows.
        """
        shown = [self.items.tokens(history, self.num_response) for history in histories]
        lengths_B = np.array([len(tokens) + self.num_response for tokens in shown], dtype=np.int64)
        rows_B, columns_B, shape = pack_rows(lengths_B, self.row_length)
        tokens_RT, examples_RT = np.full(shape, PADDING_TOKEN), np.full(shape, NO_EXAMPLE)
        positions_RT = np.zeros(shape, dtype=np.int64)
        response = -1 - np.arange(self.num_response)
        for b, tokens in enumerate(shown):
            place = rows_B[b], slice(columns_B[b], columns_B[b] + lengths_B[b])
            tokens_RT[place] = np.concatenate([tokens, response])
            examples_RT[place] = b
            positions_RT[place] = np.arange(lengths_B[b])
        last_B = rows_B * shape[1] + columns_B + lengths_B - 1
        return PackedExamples(*(torch.from_numpy(a) for a in (tokens_RT, examples_RT, positions_RT, last_B)))

"""Puts many short examples into few rows, so that hardly a token of a step is padding.

Users' histories differ in length by a factor of fifty, and a long user in a padded batch makes every other row as long
as itself. Here several examples share a row; each sees the shared prefix and itself only.

Shapes: B examples, R rows, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.rows import side_by_side

ROW_LENGTH = 64
"""Attention costs its square: 52 to 96 were equally fast on two CPU cores, 256 a third slower."""

PADDING_TOKEN = 0
NO_EXAMPLE = -1


class PackedExamples(NamedTuple):
    """What follows the instruction, for a batch of examples.

    Attributes:
        tokens_RT: int64; an item id where positive, 0 padding, and -1 - j the j-th token of the response.
        examples_RT: int64; whose token it is, `NO_EXAMPLE` for padding.
        positions_RT: int64; the place in its own example, from 0.
        last_B: int64; where the last token of each example is, counted over all rows.
    """

    tokens_RT: Tensor
    examples_RT: Tensor
    positions_RT: Tensor
    last_B: Tensor

    def to(self, device: torch.device) -> PackedExamples:
        """The same on another device."""
        return PackedExamples(*(each.to(device) for each in self))

    @property
    def num_tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.tokens_RT != PADDING_TOKEN).sum())


@dataclass(frozen=True)
class Packer:
    """Builds `PackedExamples`; every example is its items, directly followed by the response.

    Attributes:
        num_response: tokens of the response.
        row_length: tokens of a row, about; no row is shorter than the longest example. None gives each example a row.
    """

    num_response: int
    row_length: int | None = ROW_LENGTH

    def __call__(self, histories: Sequence[NDArray[np.int64]]) -> PackedExamples:
        """Packs histories (items 1..I in time order); none gives no row."""
        lengths_B = np.array([len(history) + self.num_response for history in histories], dtype=np.int64)
        rows_B, columns_B, shape = side_by_side(lengths_B, self.row_length)
        tokens_RT, examples_RT = np.full(shape, PADDING_TOKEN), np.full(shape, NO_EXAMPLE)
        positions_RT = np.zeros(shape, dtype=np.int64)
        response = -1 - np.arange(self.num_response)
        for b, history in enumerate(histories):
            place = rows_B[b], slice(columns_B[b], columns_B[b] + lengths_B[b])
            tokens_RT[place] = np.concatenate([history, response])
            examples_RT[place] = b
            positions_RT[place] = np.arange(lengths_B[b])
        last_B = rows_B * shape[1] + columns_B + lengths_B - 1
        return PackedExamples(*(torch.from_numpy(a) for a in (tokens_RT, examples_RT, positions_RT, last_B)))

"""Rows that hold several sequences one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tslrec.data.packing import Packing


def packing_of(rows: Sequence[Sequence[int]], width: int) -> Packing:
    """What each position belongs to.

    Args:
        rows: the lengths of each row's sequences.
        width: of the rows; what no sequence covers is padding.
    """
    sequences, positions = torch.full((len(rows), width), -1), torch.zeros(len(rows), width, dtype=torch.int64)
    for row, lengths in enumerate(rows):
        begin = 0
        for number, length in enumerate(lengths):
            sequences[row, begin : begin + length] = number
            positions[row, begin : begin + length] = torch.arange(length)
            begin += length
    return Packing(sequences, positions)

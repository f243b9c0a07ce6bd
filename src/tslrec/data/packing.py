"""Batches sequences of very different lengths with little padding: several to a row, or grouped by similar length.

Shapes: B sequences, L positions of a row.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MICRO_BATCH_WASTE = 0.15
"""Largest share of padding in a micro-batch; with more, it is cut in two."""
MIN_MICRO_BATCH = 16
"""Sequences per micro-batch at least; in a smaller one, a further pass costs more than the padding that it saves."""
FIXED_MICRO_BATCH = 256
"""Windows per micro-batch at most, where all have one length: more would cost memory and save hardly any time."""


class RowLayout(NamedTuple):
    """Where each of several sequences lies in rows that hold more than one.

    Attributes:
        rows_B: int64, each sequence's row.
        columns_B: int64, the column of its first position in that row.
        shape: number of rows and their length.
    """

    rows_B: NDArray[np.int64]
    columns_B: NDArray[np.int64]
    shape: tuple[int, int]


def pack_rows(lengths_B: NDArray[np.int64], row_length: int | None) -> RowLayout:
    """Distributes sequences over as few rows as `row_length` allows, and makes the rows as short as possible.

    Args:
        lengths_B: lengths of the sequences.
        row_length: approximate length of a row; no row is shorter than the longest sequence. None gives each sequence
            a row of its own.
    """
    if row_length is None or len(lengths_B) == 0:
        shape = len(lengths_B), int(lengths_B.max(initial=0))
        return RowLayout(np.arange(len(lengths_B)), np.zeros_like(lengths_B), shape)
    total = int(lengths_B.sum())
    num_rows = math.ceil(total / row_length)
    width = max(int(lengths_B.max()), math.ceil(total / num_rows))
    while (layout := first_fit(lengths_B, width)).shape[0] > num_rows:
        width += 1
    return layout


def first_fit(lengths_B: NDArray[np.int64], width: int) -> RowLayout:
    """Puts each sequence, the longest first, into the first row of `width` positions that has room for it."""
    rows_B, columns_B = np.zeros_like(lengths_B), np.zeros_like(lengths_B)
    room: list[int] = []
    row, before = 0, 0
    longest_first_B = np.argsort(-lengths_B, kind="stable")
    for b, length in zip(longest_first_B.tolist(), lengths_B[longest_first_B].tolist(), strict=True):
        # What had no room for this length has none now: the search goes on where it ended.
        row, before = row if length == before else 0, length
        while row < len(room) and room[row] < length:
            row += 1
        if row == len(room):
            room.append(width)
        rows_B[b], columns_B[b] = row, width - room[row]
        room[row] -= length
    return RowLayout(rows_B, columns_B, (len(room), width - min(room)))


def block_causal_mask(sequences_BL: Tensor) -> Tensor:
    """Attention mask of rows that hold several sequences, bool `[B, L, L]`.

    A position sees itself and the earlier positions of its own sequence.

    Args:
        sequences_BL: the number of the sequence that each position belongs to (`Packing.sequences_BL`).
    """
    length = sequences_BL.shape[1]
    same_BLL = sequences_BL[:, :, None] == sequences_BL[:, None, :]
    return same_BLL & torch.ones(length, length, dtype=torch.bool, device=sequences_BL.device).tril()


def chunks_by_length(indices: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Groups the instances of one optimizer step by similar length; each group runs as one micro-batch.

    Args:
        indices: the instances.
        lengths: the length of each of them.
    """
    order = np.argsort(lengths, kind="stable")
    return [indices[order[group]] for group in split_by_length(lengths[order])]


def equal_chunks(indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Splits the instances of one optimizer step into micro-batches of equal size, where all have the same length."""
    return np.array_split(indices, math.ceil(len(indices) / FIXED_MICRO_BATCH))


def split_by_length(sorted_lengths: NDArray[np.int64]) -> list[slice]:
    """Splits rising lengths into consecutive groups with little padding, greedily from the longest.

    A group ends before the sequence that would raise its share of padding above `MICRO_BATCH_WASTE`, unless the group
    is smaller than `MIN_MICRO_BATCH`.
    """
    groups, end = [], len(sorted_lengths)
    while end > 0:
        longest = sorted_lengths[end - 1]
        tokens = np.cumsum(sorted_lengths[:end][::-1])
        count = np.arange(1, end + 1)
        fits = (tokens >= (1 - MICRO_BATCH_WASTE) * longest * count) | (count <= MIN_MICRO_BATCH)
        size = end if fits.all() else int(np.argmin(fits))
        groups.append(slice(end - size, end))
        end -= size
    return groups


class Packing(NamedTuple):
    """For rows that hold several sequences one after the other: what each position belongs to.

    Attributes:
        sequences_BL: int64, number of the sequence that a position belongs to, different for all sequences of a row;
            -1 for padding.
        positions_BL: int64, the position within that sequence, from 0.
    """

    sequences_BL: Tensor
    positions_BL: Tensor

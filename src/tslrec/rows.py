"""Sequences of very different lengths together in a batch with little padding: side by side in rows, or cut by length.

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
"""The share of a micro-batch that may be padding before it is cut in two."""
MIN_MICRO_BATCH = 16
"""Sequences; below, the overhead of one more pass outweighs the padding that it saves."""
FIXED_MICRO_BATCH = 256
"""Windows of a fixed length in a micro-batch: so many that one more pass costs little, and no more, for the memory."""


class Rows(NamedTuple):
    """Where each sequence lies.

    Attributes:
        rows_B: int64, its row.
        columns_B: int64, its first position in it.
        shape: number of rows, and their length.
    """

    rows_B: NDArray[np.int64]
    columns_B: NDArray[np.int64]
    shape: tuple[int, int]


def side_by_side(lengths_B: NDArray[np.int64], row_length: int | None) -> Rows:
    """Puts sequences into as many rows as they fill, which are as short as they can then be.

    Args:
        lengths_B: of the sequences.
        row_length: about; no row is shorter than the longest sequence. None gives each sequence a row.
    """
    if row_length is None or len(lengths_B) == 0:
        shape = len(lengths_B), int(lengths_B.max(initial=0))
        return Rows(np.arange(len(lengths_B)), np.zeros_like(lengths_B), shape)
    total = int(lengths_B.sum())
    num_rows = math.ceil(total / row_length)
    width = max(int(lengths_B.max()), math.ceil(total / num_rows))
    while (placed := first_fit(lengths_B, width)).shape[0] > num_rows:
        width += 1
    return placed


def first_fit(lengths_B: NDArray[np.int64], width: int) -> Rows:
    """Puts each sequence, the longest first, into the first row with room for it."""
    rows_B, columns_B = np.zeros_like(lengths_B), np.zeros_like(lengths_B)
    room: list[int] = []
    for b in np.argsort(-lengths_B, kind="stable"):
        length = int(lengths_B[b])
        row = next((row for row, free in enumerate(room) if free >= length), len(room))
        if row == len(room):
            room.append(width)
        rows_B[b], columns_B[b] = row, width - room[row]
        room[row] -= length
    return Rows(rows_B, columns_B, (len(room), width - min(room)))


def own_past(sequences_BL: Tensor) -> Tensor:
    """Who sees whom in rows of several sequences, bool `[B, L, L]`: oneself, and one's own sequence before.

    Args:
        sequences_BL: which sequence each position is of.
    """
    length = sequences_BL.shape[1]
    same_BLL = sequences_BL[:, :, None] == sequences_BL[:, None, :]
    return same_BLL & torch.ones(length, length, dtype=torch.bool, device=sequences_BL.device).tril()


def by_length(indices: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The instances of one step in groups of similar length: each group runs together, all take one step together."""
    order = np.argsort(lengths, kind="stable")
    return [indices[order[cut]] for cut in cut_by_length(lengths[order])]


def in_turn(indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The instances of one step in groups of equal size, where lengths make no difference."""
    return np.array_split(indices, math.ceil(len(indices) / FIXED_MICRO_BATCH))


def cut_by_length(sorted_lengths: NDArray[np.int64]) -> list[slice]:
    """Cuts rising lengths into runs, greedily from the longest, each with little padding.

    A run is closed once taking in a shorter sequence would make more than `MICRO_BATCH_WASTE` of it padding, unless it
    is smaller than `MIN_MICRO_BATCH`.
    """
    cuts, end = [], len(sorted_lengths)
    while end > 0:
        longest = sorted_lengths[end - 1]
        tokens = np.cumsum(sorted_lengths[:end][::-1])
        count = np.arange(1, end + 1)
        fits = (tokens >= (1 - MICRO_BATCH_WASTE) * longest * count) | (count <= MIN_MICRO_BATCH)
        size = end if fits.all() else int(np.argmin(fits))
        cuts.append(slice(end - size, end))
        end -= size
    return cuts

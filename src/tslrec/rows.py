"""Puts sequences of very different lengths into few rows of one length, side by side, so that little is padding.

Shapes: B sequences.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def rows_of(lengths_B: NDArray[np.int64], row_length: int | None) -> list[list[int]]:
    """Which examples share a row: as many rows as the tokens fill, as narrow as they can then be."""
    if row_length is None or len(lengths_B) == 0:
        return [[b] for b in range(len(lengths_B))]
    total = int(lengths_B.sum())
    num_rows = math.ceil(total / row_length)
    width = max(int(lengths_B.max()), math.ceil(total / num_rows))
    while len(rows := first_fit(lengths_B, width)) > num_rows:
        width += 1
    return rows


def first_fit(lengths_B: NDArray[np.int64], width: int) -> list[list[int]]:
    """Puts each example, the longest first, into the first row with room for it."""
    rows: list[list[int]] = []
    room: list[int] = []
    for b in np.argsort(-lengths_B, kind="stable"):
        length = int(lengths_B[b])
        r = next((r for r, free in enumerate(room) if free >= length), len(rows))
        if r == len(rows):
            rows.append([])
            room.append(width)
        rows[r].append(int(b))
        room[r] -= length
    return rows

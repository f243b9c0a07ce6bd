"""Where the lines of a text are: their ends, their separators, and the first one with any text.

Shapes: L lines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 1 << 24
"""Bytes of which the separators are counted at a time."""
LINE_END = b"\n"
END_BYTE = 10


def line_ends(data: bytes) -> NDArray[np.int64]:
    """Positions of all line ends."""
    return np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == END_BYTE)


def separators_of_lines(data: bytes, separator: str) -> NDArray[np.int32]:
    """Number of separators in each line, `[L]`; counted block by block."""
    counts, start = [], 0
    while start < len(data):
        end = data.rfind(LINE_END, start, start + BLOCK_BYTES) + 1
        if end == 0 or start + BLOCK_BYTES >= len(data):
            end = len(data) if start + BLOCK_BYTES >= len(data) else (data.find(LINE_END, start) + 1 or len(data))
        block = np.frombuffer(data, dtype=np.uint8, count=end - start, offset=start)
        ends = np.flatnonzero(block == END_BYTE)
        if block[-1] != END_BYTE:
            ends = np.append(ends, len(block))
        before = np.searchsorted(np.flatnonzero(block == ord(separator)), ends)
        counts.append(np.diff(before, prepend=0).astype(np.int32))
        start = end
    return np.concatenate(counts) if counts else np.zeros(0, dtype=np.int32)


def first_text_line(data: bytes) -> int:
    """Index of the first line with any text; the data hold some."""
    before = len(data) - len(data.lstrip(b" \n\t\x0b\x0c"))
    return data.count(LINE_END, 0, before)


def next_text_line(data: bytes, index: int) -> int | None:
    """Index of the first line with any text from line `index` on; None if there is none."""
    position = 0
    for _ in range(index):
        position = data.find(LINE_END, position) + 1
        if position == 0:
            return None
    while position < len(data):
        end = data.find(LINE_END, position)
        end = len(data) if end < 0 else end
        if data[position:end].strip():
            return index
        index, position = index + 1, end + 1
    return None

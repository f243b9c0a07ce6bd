"""Cuts sources into few groups of about equal length, each padded to its longest.

Shapes: B sources.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CHUNK_COST = 32
"""Tokens of padding that cost as much time as a further chunk; on a CPU core, 16 to 64 are equally fast."""
CACHED_SCORES = 2**18
"""Attention scores that a CPU core's cache holds: a mebibyte."""


class Chunk(NamedTuple):
    """Sources of about equal length, padded to one width.

    Attributes:
        start: the place of its first token in the list of all tokens.
        rows: number of sources.
        width: tokens of each of them, padding included.
        padded: whether any of them is shorter.
    """

    start: int
    rows: int
    width: int
    padded: bool

    @property
    def place(self) -> slice:
        """The chunk's tokens in the list of all tokens."""
        return slice(self.start, self.start + self.rows * self.width)


def one_chunk(lengths_B: NDArray[np.int64]) -> tuple[NDArray[np.int64], tuple[Chunk, ...]]:
    """All sources in their order, padded to the longest."""
    order_B = np.arange(len(lengths_B))
    return order_B, tuple(chunk_of(lengths_B, [0, len(lengths_B)]))


def few_chunks(lengths_B: NDArray[np.int64]) -> tuple[NDArray[np.int64], tuple[Chunk, ...]]:
    """Sorts sources by length and cuts them where padding and the number of chunks together cost least.

    Returns:
        The order of the sources, and the chunks.
    """
    order_B = np.argsort(lengths_B, kind="stable")
    sorted_B = lengths_B[order_B]
    # A cut is only worth it between different lengths. least[j]: the cost of the sources before the j-th such place.
    places = np.concatenate([np.flatnonzero(np.diff(sorted_B, prepend=-1)), [len(sorted_B)]])
    least, before = np.zeros(len(places)), np.zeros(len(places), dtype=np.int64)
    for j in range(1, len(places)):
        costs = least[:j] + (places[j] - places[:j]) * sorted_B[places[j] - 1] + CHUNK_COST
        before[j] = np.argmin(costs)
        least[j] = costs[before[j]]
    cuts = [len(places) - 1]
    while cuts[-1] > 0:
        cuts.append(int(before[cuts[-1]]))
    return order_B, tuple(chunk_of(sorted_B, [int(places[cut]) for cut in reversed(cuts)]))


def in_cache(chunks: Sequence[Chunk], heads: int) -> tuple[Chunk, ...]:
    """Cuts chunks into such of so few rows that a CPU core's cache holds their attention scores.

    Attention writes and reads the scores several times, forwards and backwards (docs/research/speed-of-rivals.md).

    Args:
        chunks: those of `few_chunks`.
        heads: of the attention.
    """
    cut = []
    for chunk in chunks:
        rows = max(1, CACHED_SCORES // (heads * chunk.width**2))
        for first in range(0, chunk.rows, rows):
            start = chunk.start + first * chunk.width
            cut.append(chunk._replace(start=start, rows=min(rows, chunk.rows - first)))
    return tuple(cut)


def chunk_of(sorted_B: NDArray[np.int64], cuts: Sequence[int]) -> list[Chunk]:
    """The chunks between cuts.

    Args:
        sorted_B: lengths of the sources, in the order of their rows.
        cuts: the first and last row of each chunk: 0, …, B.
    """
    chunks, start = [], 0
    for first, last in itertools.pairwise(cuts):
        if first == last:
            continue
        lengths = sorted_B[first:last]
        chunks.append(Chunk(start, last - first, int(lengths.max()), bool(lengths.min() < lengths.max())))
        start += chunks[-1].rows * chunks[-1].width
    return chunks

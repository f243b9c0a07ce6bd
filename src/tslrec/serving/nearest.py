"""Finds the rows of a table that are nearest to some of its rows, in bounded memory.

Shapes: N rows that are asked about, I items (row 0 of a table is padding), C candidates, K places of a list, E size of
a vector.
"""

from __future__ import annotations

import numpy as np

from tslrec.serving.engine import Floats, Ids

BLOCK_BYTES = 64 * 2**20
"""Bytes of cosines that are held at a time."""


def nearest(unit_IE: Floats, rows_N: Ids, candidates_C: Ids | None, length: int) -> tuple[Ids, Floats]:
    """The items nearest to each of some items, by the cosine of their vectors; an item is not near itself.

    Args:
        unit_IE: vectors of norm 1, `[I + 1, E]`.
        rows_N: items.
        candidates_C: items that alone may be listed, rising; None: all.
        length: K, at most C.

    Returns:
        Items `[N, K]`, the nearest first, of equally near ones the lower number first, and their cosines; minus
        infinity for the item itself, which is the last one.
    """
    # Without candidates the table is not copied.
    table_CE = unit_IE[1:] if candidates_C is None else unit_IE[candidates_C]
    items_C = np.arange(1, len(unit_IE)) if candidates_C is None else candidates_C
    found_NK = np.empty((len(rows_N), length), dtype=np.int64)
    cosines_NK = np.empty((len(rows_N), length), dtype=np.float32)
    step = max(1, BLOCK_BYTES // (4 * len(items_C)))
    for begin in range(0, len(rows_N), step):
        rows = rows_N[begin : begin + step]
        cosines = unit_IE[rows] @ table_CE.T
        cosines[rows[:, None] == items_C] = -np.inf
        for place, row_C in enumerate(cosines, start=begin):
            columns = best_columns(row_C, length)
            found_NK[place], cosines_NK[place] = items_C[columns], row_C[columns]
    return found_NK, cosines_NK


def best_columns(scores_C: Floats, length: int) -> Ids:
    """The columns of the highest scores, best first; of equal scores the lower column is first.

    `tslrec.evaluation.best_items` does so for rows of scores in PyTorch, which a served export need not have.

    Args:
        scores_C: the scores.
        length: K, at most C. Only so many are sorted, and those that equal the last of them.
    """
    place = len(scores_C) - length
    columns = np.flatnonzero(scores_C >= np.partition(scores_C, place)[place])
    order = np.argsort(-scores_C[columns], kind="stable")[:length]
    best: Ids = columns[order]
    return best

"""Builds the batch whose rows hold several sequences.

Shapes: B sequences, S items of all sequences, one after the other, L positions of a row.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.packing import Packing, pack_rows
from tslrec.data.sequence_batch import SequenceBatch
from tslrec.data.windows import index_in_group


def packed_batch(
    lengths_B: NDArray[np.int64],
    items_S: NDArray[np.int64],
    targets_S: NDArray[np.int64],
    row_length: int,
    places_S: NDArray[np.int64] | None = None,
) -> SequenceBatch:
    """Packs sequences into rows.

    Args:
        lengths_B: number of items of each sequence.
        items_S: the items.
        targets_S: the target at each item, or 0.
        row_length: see `pack_rows`.
        places_S: see `SequenceBatch.places`.
    """
    rows_B, columns_B, shape = pack_rows(lengths_B, row_length)
    within = index_in_group(lengths_B)
    index = np.repeat(rows_B, lengths_B), np.repeat(columns_B, lengths_B) + within
    sequences = np.repeat(np.arange(len(lengths_B)), lengths_B)
    packing = Packing(scatter(shape, index, sequences, -1), scatter(shape, index, within, 0))
    unused_B = torch.zeros(shape[0], dtype=torch.int64)
    items_BL, targets_BL = scatter(shape, index, items_S, 0), scatter(shape, index, targets_S, 0)
    places_BL = None if places_S is None else scatter(shape, index, places_S, 0)
    return SequenceBatch(items_BL, unused_B, unused_B, targets_BL, packing=packing, places=places_BL)


def scatter(
    shape: tuple[int, int], index: tuple[NDArray[np.int64], NDArray[np.int64]], values: NDArray[np.int64], fill: int
) -> Tensor:
    """A tensor that holds values at the given positions and `fill` elsewhere.

    Args:
        shape: the tensor's shape.
        index: row and column of each value.
        values: the values.
        fill: the number at all other positions.
    """
    array = np.full(shape, fill, dtype=np.int64)
    array[index] = values
    return torch.from_numpy(array)

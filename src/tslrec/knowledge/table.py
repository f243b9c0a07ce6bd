"""The rows of a knowledge store in the order of the items, read by slices.

Shapes: I items (row 0 of a table is padding), R rows of a slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.system.row_tables import FileTable, read_rows


@dataclass(frozen=True)
class ItemLocations:
    """The shard and the row of each item; item i is at index i - 1.

    Attributes:
        shards_I: int32, number of the shard, from 0.
        rows_I: int32, row within the shard, from 0.
    """

    shards_I: NDArray[np.int32]
    rows_I: NDArray[np.int32]

    @classmethod
    def in_order(cls, num_items: int, shard_size: int) -> ItemLocations:
        """The locations when the items fill the shards one after the other.

        Args:
            num_items: I.
            shard_size: rows per shard; the last shard may have fewer.
        """
        positions = np.arange(num_items, dtype=np.int32)
        return cls(positions // np.int32(shard_size), positions % np.int32(shard_size))


class KnowledgeTable:
    """One array of a store as a `Table` in the order of the items, with a row of zeros for padding.

    A slice reads only its own rows from disk and returns them as float32.

    Args:
        folder: the store's.
        key: name of the array, `knowledge` or `categories`.
        locations: where each item's row is.

    Attributes:
        shape: `(I + 1, width)`.
    """

    def __init__(self, folder: Path, key: str, locations: ItemLocations) -> None:
        self.folder = folder
        self.key = key
        self.locations = locations
        width = FileTable(folder / shard_file(0), key).shape[1]
        self.shape: tuple[int, ...] = (len(locations.shards_I) + 1, width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> Tensor:
        start, stop, _ = rows.indices(len(self))
        found = torch.zeros(stop - start, self.shape[1])
        first = max(start, 1)
        shards_R, rows_R = self.locations.shards_I[first - 1 : stop - 1], self.locations.rows_I[first - 1 : stop - 1]
        for shard in np.unique(shards_R):
            here = np.flatnonzero(shards_R == shard)
            table = FileTable(self.folder / shard_file(int(shard)), self.key)
            found[torch.from_numpy(here + (first - start))] = read_rows(table, rows_R[here].astype(np.int64)).float()
        return found


def shard_file(number: int) -> str:
    """The file name of a shard in a finished store."""
    return f"knowledge-{number:05d}.safetensors"

"""Tables that are read a slice of rows at a time, so that no more than that of them need be in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from tslrec.arrays import refusing_others, shapes
from tslrec.errors import UserError

SLICE = 16_384
"""Rows at a time: 64 MB of 1,024 float32 each."""


class Table(Protocol):
    """What gives its rows by slices: a tensor, or files."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor: ...


class FileTable:
    """An array of a safetensors file, which stays where it is: a slice is a view of the mapped file.

    Args:
        path: the file.
        key: of the array.
        dimensions: of the array.

    Raises:
        UserError: if the file is not safetensors, or has no such array.
    """

    def __init__(self, path: Path, key: str, dimensions: int = 2) -> None:
        self.path = path
        self.key = key
        self.shape: tuple[int, ...] = shapes(path)[0].get(key, ())
        if len(self.shape) != dimensions:
            raise UserError(
                f"{path}: no '{key}' of {dimensions} dimension(s) in it; delete {path.parent} to compute it again"
            )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> Tensor:
        # Opened for each slice: what is read of a mapped file counts as this process's memory until it is let go.
        with refusing_others(self.path), safe_open(self.path, framework="pt") as file:
            found: Tensor = file.get_slice(self.key)[rows]
        return found


def slices(stop: int, start: int = 0, size: int = SLICE) -> Iterator[slice]:
    """Consecutive slices from `start` to `stop`."""
    for begin in range(start, stop, size):
        yield slice(begin, min(begin + size, stop))


def read_rows(table: Table, rows_R: NDArray[np.int64]) -> Tensor:
    """The rows of these numbers, in their order; what lies between the smallest and the largest is passed over once."""
    if not len(rows_R):
        return table[0:0]
    order = np.argsort(rows_R, kind="stable")
    rising_R = rows_R[order]
    parts = []
    for each in slices(int(rising_R[-1]) + 1, start=int(rising_R[0])):
        begin, end = np.searchsorted(rising_R, [each.start, each.stop])
        if end > begin:
            parts.append(table[each][torch.from_numpy(rising_R[begin:end] - each.start)])
    return torch.cat(parts)[torch.from_numpy(np.argsort(order))]

"""Tables that are read a slice of rows at a time, so that only one slice needs to be in memory.

Shapes: R requested rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import refuse_unreadable, shapes

SLICE = 16_384
"""Rows per slice: 64 MB at 1,024 float32 numbers a row."""


class Table(Protocol):
    """A table whose rows are read by slices: a tensor, or arrays in files."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor: ...


class FileTable:
    """An array of a safetensors file, read slice by slice: a slice is a view of the memory-mapped file.

    Args:
        path: the file.
        key: the array's name in it.
        dimensions: number of dimensions that the array must have.

    Raises:
        UserError: if the file is not safetensors, or has no such array with so many dimensions.
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
        # Opened for each slice: pages read from a mapped file count as this process's memory until it is unmapped.
        with refuse_unreadable(self.path), safe_open(self.path, framework="pt") as file:
            found: Tensor = file.get_slice(self.key)[rows]
        return found


def slices(stop: int, start: int = 0, size: int = SLICE) -> Iterator[slice]:
    """Consecutive slices of at most `size` rows that cover `range(start, stop)`."""
    for begin in range(start, stop, size):
        yield slice(begin, min(begin + size, stop))


def read_rows(table: Table, rows_R: NDArray[np.int64]) -> Tensor:
    """Rows of a table by their numbers, in the given order.

    The table is read once, slice by slice, from the smallest requested row to the largest.

    Args:
        table: the table.
        rows_R: row numbers, in any order.

    Returns:
        `[R, …]`.
    """
    if not len(rows_R):
        return table[0:0]
    order = np.argsort(rows_R, kind="stable")
    sorted_R = rows_R[order]
    parts = []
    for rows in slices(int(sorted_R[-1]) + 1, start=int(sorted_R[0])):
        begin, end = np.searchsorted(sorted_R, [rows.start, rows.stop])
        if end > begin:
            parts.append(table[rows][torch.from_numpy(sorted_R[begin:end] - rows.start)])
    return torch.cat(parts)[torch.from_numpy(np.argsort(order))]

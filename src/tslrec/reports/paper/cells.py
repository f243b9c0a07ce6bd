"""Finished cells: the results of the grid's runs, `results/cells/NAME.json` and `NAME.safetensors`.

The JSON holds settings, metrics and costs. The arrays hold a value per tested user (the rank of the target) or per item
(the latent category); users and items are anonymous row numbers.

Shapes: T tested users.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tslrec.evaluation.protocols import PROTOCOLS
from tslrec.system.errors import UserError
from tslrec.system.files import describe, write_aside, write_json

Arrays = Mapping[str, NDArray[Any]]

BEYOND = 255
"""Ranks are stored doubled in one byte, since ties give half ranks; this value stands for every rank above 127."""

DEGREES = "degrees"
"""The array with the group of each tested user by the degree of the item to be found (`degree_groups`)."""

FIELDS = ("cell", "command", "data", "model", "source_model", "preset", "method", "seed", "metrics", "config", "stages")
"""The keys that the JSON of every cell has."""


@dataclass(frozen=True)
class CellResult:
    """A finished cell.

    Attributes:
        path: the JSON file.
        content: its content, as `collect.py` wrote it.
    """

    path: Path
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The cell's name in the grid, and that of its files."""
        return str(self.content["cell"])

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.content["seed"])

    @property
    def method(self) -> str:
        """The method's name in `configs/method`."""
        return str(self.content["method"])

    @cached_property
    def arrays(self) -> Arrays:
        """The arrays by name, checked against the hash that the JSON records.

        Raises:
            UserError: if the file is missing or has another hash.
        """
        from safetensors.numpy import load_file

        path = self.path.with_suffix(".safetensors")
        if not path.is_file() or describe(path)["sha256"] != self.content["arrays"]["sha256"]:
            raise UserError(f"{path}: not the arrays that {self.path.name} names; delete both to run the cell again")
        return load_file(path)

    def ranks(self, protocol: str) -> NDArray[np.float64]:
        """Ranks of the tested users' targets, `[T]`, in the order of their rows; infinite above 127."""
        return unpack_ranks(self.arrays[protocol])


def write_cell(folder: Path, name: str, content: Mapping[str, Any], arrays: Arrays) -> CellResult:
    """Writes both files of a cell, the JSON last: a cell whose JSON exists is complete."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    with write_aside(path) as aside:
        save_file(dict(arrays), aside)
    whole = {**content, "cell": name, "arrays": describe(path)}
    write_json(folder / f"{name}.json", whole)
    return CellResult(folder / f"{name}.json", whole)


def read_cells(folder: Path) -> list[CellResult]:
    """All finished cells of a folder, sorted by name.

    Raises:
        UserError: if a cell cannot be read.
    """
    return [read_cell(path) for path in sorted(folder.glob("*.json"))]


def read_cell(path: Path) -> CellResult:
    """One finished cell.

    Raises:
        UserError: if the file is not the JSON of a finished cell.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable ({error}); delete it to run the cell again") from error
    missing = [name for name in FIELDS if not isinstance(content, dict) or name not in content]
    if missing:
        raise UserError(f"{path}: not a finished cell ('{missing[0]}' is missing); delete it to run the cell again")
    return CellResult(path, content)


def pack_ranks(ranks: Arrays) -> dict[str, NDArray[np.uint8]]:
    """Packs ranks by protocol into bytes: enough for metrics of short lists, in little space."""
    return {name: np.minimum(2 * ranks[name], BEYOND).astype(np.uint8) for name in PROTOCOLS}


def unpack_ranks(packed_T: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The ranks of packed bytes, from 1, half ranks exact; infinite above 127."""
    return np.where(packed_T == BEYOND, np.inf, packed_T / 2)

"""What the runs of a grid reached: `results/cells/NAME.json`, and `NAME.safetensors` with an array per user and item.

The arrays are of results, by anonymous rows: ranks of tested users, and latent categories of items.
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

from tslrec.errors import UserError
from tslrec.files import describe, sync, write_json
from tslrec.metrics import PROTOCOLS

Arrays = Mapping[str, NDArray[Any]]

FARTHER = 255
"""Twice a rank, as a byte; whatever is beyond rank 127."""

FIELDS = ("cell", "command", "data", "model", "source_model", "preset", "method", "seed", "metrics", "config", "stages")


@dataclass(frozen=True)
class CellResult:
    """A finished cell.

    Attributes:
        path: of its JSON.
        content: what is in it; see `collect.py`.
    """

    path: Path
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.content["cell"])

    @property
    def seed(self) -> int:
        return int(self.content["seed"])

    @property
    def method(self) -> str:
        return str(self.content["method"])

    @cached_property
    def arrays(self) -> Arrays:
        """Its arrays, checked against their hash.

        Raises:
            UserError: if they are not those that the JSON speaks of.
        """
        from safetensors.numpy import load_file

        path = self.path.with_suffix(".safetensors")
        if not path.is_file() or describe(path)["sha256"] != self.content["arrays"]["sha256"]:
            raise UserError(f"{path}: not the arrays that {self.path.name} names; delete both to run the cell again")
        return load_file(path)

    def ranks(self, protocol: str) -> NDArray[np.float64]:
        """Ranks of the tested users in the order of their rows; beyond 127 infinite."""
        return unpack_ranks(self.arrays[protocol])


def write_cell(folder: Path, name: str, content: Mapping[str, Any], arrays: Arrays) -> CellResult:
    """Writes both files of a cell, the JSON last: where it is, the cell is whole."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    aside = path.with_name(path.name + ".writing")
    save_file(dict(arrays), aside)
    sync(aside)
    aside.replace(path)
    whole = {**content, "cell": name, "arrays": describe(path)}
    write_json(folder / f"{name}.json", whole)
    return CellResult(folder / f"{name}.json", whole)


def read_cells(folder: Path) -> list[CellResult]:
    """All finished cells of a folder, by name.

    Raises:
        UserError: if one cannot be read.
    """
    return [read_cell(path) for path in sorted(folder.glob("*.json"))]


def read_cell(path: Path) -> CellResult:
    """One finished cell.

    Raises:
        UserError: if the file is none.
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
    """Ranks by protocol as bytes: all that metrics of short lists are made of, in a form that is small."""
    return {name: np.minimum(2 * ranks[name], FARTHER).astype(np.uint8) for name in PROTOCOLS}


def unpack_ranks(packed_T: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Ranks from 1, halves exact; infinite beyond 127."""
    return np.where(packed_T == FARTHER, np.inf, packed_T / 2)

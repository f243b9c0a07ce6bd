"""sha256 of files, of item ids and of table rows: a result records them to say what it was made from.

Manifests need `file_sha256`, so this module imports no torch; it only uses tensors that callers pass in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tslrec.system.row_tables import Table


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_item_map(raw_ids: Iterable[str]) -> str:
    """Hex sha256 of the raw ids of items 1..I, in that order; the padding item 0 is left out."""
    state = hashlib.sha256()
    for raw_id in raw_ids:
        state.update(raw_id.encode() + b"\n")
    return state.hexdigest()


def digest_texts(texts: Iterable[str]) -> str:
    """Hex sha256 of texts, in that order."""
    state = hashlib.sha256()
    for text in texts:
        content = text.encode()
        # With its length before it, no text can stand for two.
        state.update(f"{len(content)} ".encode() + content)
    return state.hexdigest()


def digest_rows(table: Table, start: int = 0) -> str:
    """Hex sha256 of a table's rows from row number `start` on, as float32."""
    from tslrec.system.row_tables import slices

    state = hashlib.sha256()
    for rows in slices(len(table), start=start):
        state.update(table[rows].float().contiguous().numpy().tobytes())
    return state.hexdigest()


def digest_files(folder: Path, names: Iterable[str]) -> str:
    """Hex sha256 of several files below a folder: of their names and contents, in the given order."""
    state = hashlib.sha256()
    for name in names:
        state.update(f"{name} {file_sha256(folder / name)}\n".encode())
    return state.hexdigest()

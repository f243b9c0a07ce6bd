"""Files that are whole or not there: written aside, synced, renamed; and what tells their bytes from others."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def list_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def describe(path: Path) -> dict[str, Any]:
    """Size in bytes and hex sha256 of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write_json(path: Path, value: Any) -> None:
    """Writes JSON aside, synced, then renamed, so that no reader ever sees half of it."""
    aside = path.with_name(path.name + ".writing")
    try:
        with aside.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=2, sort_keys=True, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Makes every file below a folder, and the folder itself, survive a power cut."""
    for name in list_files(folder):
        sync(folder / name)
    sync(folder)


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Files that are complete or absent: written under a temporary name, synced to disk, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tslrec.system.hashing import file_sha256


def list_files(folder: Path) -> list[str]:
    """Paths of all files below a folder, relative to it, with forward slashes, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def describe(path: Path) -> dict[str, Any]:
    """Size in bytes and hex sha256 of a file, as a manifest records them: `{"bytes": …, "sha256": …}`."""
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically: a reader sees the old file or the complete new one, never a part.

    Args:
        path: the file to write.
        value: anything that JSON can express; NaN and infinity are refused.
    """
    with write_aside(path) as aside, aside.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, sort_keys=True, allow_nan=False)
        file.write("\n")


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; at the end, the file written there is synced and renamed to `path`.

    A reader sees the old file or the new one, never a part of it. After an error the temporary file is removed, and an
    `OSError` that names no file (a full disk) names this one.
    """
    aside = path.with_name(path.name + ".writing")
    try:
        yield aside
        sync(aside)
        aside.replace(path)
    except OSError as error:
        # Libraries written in Rust raise it with a text alone, which a name would hide.
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8; see `write_aside`."""
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def sync_tree(folder: Path) -> None:
    """Waits until every file below a folder, and the folder itself, is on disk and survives a power cut."""
    for name in list_files(folder):
        sync(folder / name)
    sync(folder)


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

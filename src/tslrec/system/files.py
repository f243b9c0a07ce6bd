"""Files that are complete or absent: written under a temporary name, synced to disk, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tslrec.system.hashing import file_sha256

WRITING = ".writing"
"""Suffix of a file's temporary name: `result.json.HOST-PROCESS-THREAD.writing`."""

ABANDONED_SECONDS = 24 * 3600.0
"""A temporary file of another host is left over if nobody has written to it for this long."""


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

    A reader sees the old file or the new one, never a part of it. Several processes may write the same file: the last
    one counts. After an error the temporary file is removed, and an `OSError` that names no file (a full disk) names
    this one. What killed processes left of the same file is removed.
    """
    with contextlib.suppress(OSError):
        for left in left_over(path):
            left.unlink()
    aside = name_aside(path)
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


def is_being_written(name: str, final: str) -> bool:
    """Whether a name is a temporary one under which `write_aside` writes a file, in this version or an earlier one.

    Args:
        name: of the file in question.
        final: name of the file that is written.
    """
    return re.fullmatch(rf"{re.escape(final)}(\.\w+-\d+-\d+)?{re.escape(WRITING)}", name) is not None


def name_aside(path: Path) -> Path:
    """The temporary name of a file or folder, which no other process or thread uses."""
    return path.with_name(f"{path.name}.{host()}-{os.getpid()}-{threading.get_native_id()}{WRITING}")


def left_over(path: Path) -> list[Path]:
    """What processes that were killed left of `path` under temporary names."""
    return [each for each in path.parent.iterdir() if is_being_written(each.name, path.name) and is_left_over(each)]


def is_left_over(aside: Path) -> bool:
    """Whether nobody writes a temporary file any more: its process is gone, or is unknown and has long been silent."""
    writer = re.search(rf"\.{re.escape(host())}-(?P<process>\d+)-\d+{re.escape(WRITING)}$", aside.name)
    if writer is None:
        return time.time() - aside.stat().st_mtime > ABANDONED_SECONDS
    try:
        os.kill(int(writer["process"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def host() -> str:
    """Names this machine, and in it the container: process numbers are unique only within one."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return re.sub(r"\W+", "_", f"{socket.gethostname()}-{space}").strip("_")


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

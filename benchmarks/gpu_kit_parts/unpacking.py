"""The pieces of the kit out of its volumes, in any order, with nothing but Python."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

from gpu_kit_parts.errors import KitError
from gpu_kit_parts.packing import MANIFEST

WAITING = "parts"
"""Folder in the kit where the parts of a piece wait for the others."""


def unpack(volume: Path, kit: Path) -> None:
    """Takes a volume's parts into the kit, and extracts the pieces that are complete with them.

    Raises:
        KitError: if the volume is none, a piece is damaged, or this Python's tarfile trusts what is in an archive.
    """
    if not hasattr(tarfile, "data_filter"):
        raise KitError("this Python extracts whatever an archive says; unpack with 3.11.4 or newer")
    try:
        parts = json.loads((volume / MANIFEST).read_text())["parts"]
    except (OSError, ValueError, KeyError) as error:
        raise KitError(f"{volume / MANIFEST}: not readable ({error}); name a folder that pack has written") from error
    waiting = kit / WAITING
    waiting.mkdir(parents=True, exist_ok=True)
    for part in parts:
        shutil.copyfile(volume / part["file"], waiting / part["file"])
    for part in parts:
        extract_if_complete(part, waiting, kit)


def extract_if_complete(part: dict[str, Any], waiting: Path, kit: Path) -> None:
    """Extracts a piece into the kit if all of its parts are there.

    Raises:
        KitError: if they are not what was packed.
    """
    name, target = part["piece"], kit / part["piece"]
    files = sorted(waiting.glob(f"{name}.tar.xz.*"))
    have = sum(file.stat().st_size for file in files)
    if have < part["bytes"]:
        print(f"{name}: {have / part['bytes']:.0%} is there; unpack the other volumes, too")
        return
    data = b"".join(file.read_bytes() for file in files)
    if hashlib.sha256(data).hexdigest() != part["sha256"]:
        raise KitError(f"{name}: not what was packed; unpack all volumes of one packing into an empty folder")
    whole, aside = waiting / f"{name}.whole", kit / f"{name}.partial"
    whole.write_bytes(data)
    shutil.rmtree(aside, ignore_errors=True)
    with tarfile.open(whole, "r:xz") as tar:
        tar.extractall(aside, filter="data")
    shutil.rmtree(target, ignore_errors=True)
    (aside / name).rename(target)
    aside.rmdir()
    for file in [*files, whole]:
        file.unlink()
    print(f"{name}: {target}")

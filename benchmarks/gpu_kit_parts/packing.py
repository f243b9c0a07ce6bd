"""Archives of the pieces, cut into volumes below a limit."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_kit_parts.errors import KitError
from gpu_kit_parts.pieces import ROOT, Piece

MIB = 2**20

RESERVE_BYTES = 3 * MIB
"""Left free in each volume, for the manifest and for what a transfer adds to each of the checkout's files."""
MANIFEST = "volume.json"


def archive(name: str, piece: Piece, folder: Path, *, fresh: bool) -> Path:
    """The archive of a piece, made where it is missing."""
    path = folder / f"{name}.tar.xz"
    if path.is_file() and not fresh:
        return path
    content = folder / name
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir(parents=True)
    piece.make(content)
    aside = path.with_suffix(".partial")
    with tarfile.open(aside, "w:xz", preset=6) as tar:
        tar.add(content, arcname=name)
    shutil.rmtree(content)
    aside.replace(path)
    return path


def tracked_bytes() -> int:
    """Bytes of the files that travel with a checkout: those that git tracks or does not ignore."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.decode().split("\0")
    return sum((ROOT / name).stat().st_size for name in found if name and (ROOT / name).is_file())


def write_volumes(archives: dict[str, Path], out: Path, room: int) -> list[int]:
    """Writes the volumes.

    Args:
        archives: of the pieces, in order.
        out: the folder of the volumes; earlier ones are deleted.
        room: bytes that a volume may have.

    Returns:
        The bytes of each volume.

    Raises:
        KitError: if there is no room at all.
    """
    if room < MIB:
        raise KitError(
            "--limit: the checkout alone takes it up; raise it, or remove large files that git does not know"
        )
    for earlier in out.glob("volume-*"):
        shutil.rmtree(earlier)
    sizes: list[int] = []
    for name, path in archives.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        for part, (volume, data) in enumerate(cut(path.read_bytes(), sizes, room)):
            folder = out / f"volume-{volume}"
            folder.mkdir(parents=True, exist_ok=True)
            file = f"{name}.tar.xz.{part:03}"
            (folder / file).write_bytes(data)
            manifest = folder / MANIFEST
            content: dict[str, Any] = json.loads(manifest.read_text()) if manifest.is_file() else {"parts": []}
            content["parts"].append({"file": file, "piece": name, "sha256": digest, "bytes": path.stat().st_size})
            manifest.write_text(json.dumps(content, indent=1))
    return sizes


def cut(data: bytes, sizes: list[int], room: int) -> Iterator[tuple[int, bytes]]:
    """Parts of some bytes, each with the number of the volume that it goes into; adds them to the volumes' sizes."""
    begin = 0
    while begin < len(data):
        if not sizes or sizes[-1] >= room:
            sizes.append(0)
        end = min(len(data), begin + room - sizes[-1])
        sizes[-1] += end - begin
        yield len(sizes), data[begin:end]
        begin = end

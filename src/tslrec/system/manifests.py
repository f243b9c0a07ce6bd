"""The manifest of a result folder, and the names of the folders and files around it.

`manifest.json` is written last and lists every file with its size and sha256: a folder with a manifest is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tslrec.system.errors import UserError
from tslrec.system.files import describe, list_files, sync, sync_tree, write_json

if TYPE_CHECKING:
    from filelock import BaseFileLock


MANIFEST = "manifest.json"

LOG = "log"
"""Folder of a stage's training log, in its result folder."""

LOG_FILE = f"{LOG}/metrics.csv"

KEY_LENGTH = 12
"""Hex digits of a result's key that its folder name shows."""

POLL_SECONDS = 0.2
"""Time between two looks at the disk for a result that another process is computing."""

PARTIAL, CHECKPOINTS, LOCK = ".partial", ".checkpoints", ".lock"
"""Suffixes of a result's folder name: the folder while it is being written, its checkpoints, its lock file."""


def publish(aside: Path, final: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the manifest of a finished folder, syncs the folder to disk, and renames it to its final name.

    Args:
        aside: the folder under its temporary name.
        final: the final name, on the same disk and not taken.
        facts: the manifest's entries other than `files`.

    Returns:
        The manifest.
    """
    manifest = {**facts, "files": {name: describe(aside / name) for name in list_files(aside)}}
    write_json(aside / MANIFEST, manifest)
    sync_tree(aside)
    aside.rename(final)
    sync(final.parent)
    return manifest


def is_free(lock: BaseFileLock) -> bool:
    """Whether no process holds a lock now; does not create a lock file that does not exist."""
    from filelock import Timeout

    if not Path(lock.lock_file).exists():
        return True
    try:
        with lock.acquire(timeout=0):
            return True
    except Timeout:
        return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads the manifest of a finished artifact.

    Raises:
        UserError: if the manifest is missing, unreadable, or lacks `key`, `files` or `metrics`.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a readable manifest ({error}); delete {folder} to compute it again") from error
    if not isinstance(manifest, dict) or not {"key", "files", "metrics"} <= manifest.keys():
        raise UserError(f"{path}: not a manifest; delete {folder} to compute it again")
    return manifest


def verify(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Checks that each file of an artifact has the size and sha256 that its manifest names.

    Raises:
        UserError: for the first file that is missing or differs.
    """
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing from the artifact; delete {folder} to compute it again")
        if describe(path) != expected:
            raise UserError(f"{path}: not the bytes its manifest names; delete {folder} to compute it again")


def find_result(root: Path, stage: str, key: str, wanted_by: Path) -> tuple[Path, dict[str, Any]]:
    """The folder and the manifest of a stage's result; its files are not verified.

    Args:
        root: the artifacts folder.
        stage: the stage's name.
        key: the result's whole key.
        wanted_by: what was made from it, for the message.

    Raises:
        UserError: if it is not there.
    """
    for folder in (root / stage).glob(f"*-{key[:KEY_LENGTH]}"):
        manifest = read_manifest(folder)
        if manifest["key"] == key:
            return folder, manifest
    raise UserError(f"{wanted_by}: made from {stage} {key[:KEY_LENGTH]}, which is not in {root}; put it there")

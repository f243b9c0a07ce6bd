"""The option `--json FILE` of several verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tslrec.system.errors import UserError


def refuse_no_place(path: Path) -> None:
    """Refuses, before any work, an output file that is a folder or whose folder does not exist.

    Raises:
        UserError: if so.
    """
    if path.is_dir():
        raise UserError(f"--json {path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UserError(f"--json {path}: there is no folder {path.parent}; make it, or name another file")


def write(path: Path, value: Any) -> None:
    """Writes a value as JSON.

    Raises:
        UserError: if the file cannot be written.
    """
    from tslrec.system.files import write_json

    try:
        write_json(path, value)
    except OSError as error:
        raise UserError(f"--json {path}: {error.strerror or error}; name a file that can be written") from error

"""Faults of a disk, which end a run in one line whichever library meets them."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from tslrec.errors import UserError

FAULTS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.EIO,
        errno.ESTALE,
        errno.ENAMETOOLONG,
    }
)
IN_TEXT = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust (safetensors, polars) pass on what the operating system said."""


def disk_fault(error: Exception, where: Path | None = None) -> UserError | None:
    """What a person is told of a full disk, a folder that cannot be written, or a file that is gone.

    Args:
        error: what a library raised.
        where: the folder that it was working on, for an error that does not name its file.

    Returns:
        None of what the disk is not to blame for.
    """
    number, name = None, None
    if isinstance(error, OSError):
        number, name = error.errno, error.filename
    if number is None and (match := IN_TEXT.search(str(error))):
        number = int(match[1])
    if number not in FAULTS or number is None:
        return None
    remedy = "a run needs folders that can be written, with space left: set artifacts=FOLDER or cache=FOLDER"
    if number == errno.ENOENT:
        remedy = "it was there, or should have been: put it back, or run it again"
    return UserError(f"{name or where or 'the disk'}: {os.strerror(number)}; {remedy}")

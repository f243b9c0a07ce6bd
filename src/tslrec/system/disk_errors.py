"""Turns disk errors, from whichever library, into one line for the user: disk full, not writable, file missing."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from tslrec.system.errors import UserError

DISK_ERRNOS = frozenset(
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
OS_ERROR_IN_TEXT = re.compile(r"\(os error (\d+)\)")
"""Libraries written in Rust (safetensors, polars) give the errno only in the text of their exceptions."""


RUN_REMEDY = "a run needs folders that can be written, with space left: set artifacts=FOLDER or cache=FOLDER"
"""What to do where a run cannot write."""


def disk_fault(error: Exception, where: Path | None = None, remedy: str = RUN_REMEDY) -> UserError | None:
    """The `UserError` to raise instead of an exception that the disk caused.

    Args:
        error: the exception that a library raised.
        where: the folder in use, for an exception that names no file.
        remedy: what to do, unless a file is missing.

    Returns:
        The error to raise, or None if the exception has another cause.
    """
    number, name = None, None
    if isinstance(error, OSError):
        number, name = error.errno, error.filename
    if number is None and (match := OS_ERROR_IN_TEXT.search(str(error))):
        number = int(match[1])
    if number not in DISK_ERRNOS or number is None:
        return None
    if number == errno.ENOENT:
        remedy = "the file is missing: put it back, or run the command again"
    return UserError(f"{name or where or 'the disk'}: {os.strerror(number)}; {remedy}")

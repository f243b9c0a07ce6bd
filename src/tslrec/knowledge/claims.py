"""Pieces of work that several processes share without talking: each piece is held by one of them at a time."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from types import TracebackType


class Claims:
    """A lock per piece: one byte of a file each (POSIX record locks), which the system lets go when its holder ends.

    So whoever comes first takes a piece, and what a killed process held is free at once.

    Args:
        path: the file; it must be there.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("r+b")

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Lets go of everything."""
        self.file.close()

    def take(self, piece: int) -> bool:
        """Whether the piece is this process's from here on; False if another one holds it."""
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, piece)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            return False
        return True

    def let_go(self, piece: int) -> None:
        fcntl.lockf(self.file, fcntl.LOCK_UN, 1, piece)

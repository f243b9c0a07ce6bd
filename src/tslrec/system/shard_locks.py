"""Locks by which the processes of a job share out shards without communicating: one process holds a shard at a time."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from types import TracebackType


class ShardLocks:
    """One lock per shard: byte n of a file, under a POSIX record lock.

    The operating system releases a lock when its process ends, so the shard of a killed process is free at once. The
    locks are released when the object's context ends.

    Args:
        path: an existing file, the same for all processes.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("r+b")

    def __enter__(self) -> ShardLocks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Releases all locks."""
        self.file.close()

    def try_acquire(self, number: int) -> bool:
        """Locks a shard without waiting; returns False if another process holds it."""
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            return False
        return True

    def release(self, number: int) -> None:
        """Unlocks a shard."""
        fcntl.lockf(self.file, fcntl.LOCK_UN, 1, number)

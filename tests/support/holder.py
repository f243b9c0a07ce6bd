"""Holds the lock of shard 3 in `FOLDER/claims` until it is killed: `python holder.py FOLDER`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tslrec.system.shard_locks import ShardLocks

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with ShardLocks(folder / "claims") as locks:
        assert locks.try_acquire(3)
        (folder / ".held").touch()
        time.sleep(600)

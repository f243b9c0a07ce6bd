"""Holds piece 3 of `FOLDER/claims` until it is killed: `python holder.py FOLDER`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tslrec.knowledge.claims import Claims

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with Claims(folder / "claims") as claims:
        assert claims.take(3)
        (folder / "held").touch()
        time.sleep(600)

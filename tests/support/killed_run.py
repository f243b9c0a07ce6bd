"""`train.py`, killed by itself at one of its writes: `python killed_run.py PATTERN STEP MOMENT OVERRIDES…`.

Every result and every checkpoint is published by one function, `system.manifests.publish`, which writes the manifest
beside the finished files and gives the folder its final name. The process sends itself SIGKILL when it publishes a
folder whose path ends like PATTERN and, if the folder is a checkpoint, whose step is STEP or later: with MOMENT `after`
as soon as the folder has its final name, with MOMENT `before` when all files but the manifest are written. So a test
decides where a run is killed, and no clock does. The environment variable `SIGNAL` names another signal.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from support.checkout import CHECKOUT
from tslrec.system import manifests

SIGNAL = "TSLREC_TEST_SIGNAL"
"""Environment variable: the number of the signal that the process sends itself; without it SIGKILL."""
CHECKPOINT = "step-"
"""The beginning of a checkpoint's folder name, which its step follows."""


def is_meant(folder: Path, pattern: str, step: int) -> bool:
    """Whether the run is killed when it publishes this folder."""
    if not fnmatch(folder.as_posix(), f"*/{pattern}"):
        return False
    return not folder.name.startswith(CHECKPOINT) or int(folder.name.removeprefix(CHECKPOINT)) >= step


def main(pattern: str, step: int, moment: str, overrides: list[str]) -> None:
    """Runs `train.py` in this process with a `publish` that kills it."""
    publish, number = manifests.publish, int(os.environ.get(SIGNAL, signal.SIGKILL))

    def publish_or_kill(aside: Path, final: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        meant = is_meant(final, pattern, step)
        if meant and moment == "before":
            os.kill(os.getpid(), number)
        manifest = publish(aside, final, facts)
        if meant:
            os.kill(os.getpid(), number)
        return manifest

    # The modules that publish are imported later than this, and take the function by its name.
    manifests.publish = publish_or_kill
    program = str(CHECKOUT / "train.py")
    sys.argv = [program, *overrides]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])

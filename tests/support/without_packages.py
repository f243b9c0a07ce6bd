"""Runs a program as if some packages were not installed: `python without_packages.py PACKAGE,… PROGRAM ARGUMENTS…`.

PROGRAM is the file of a Python program, or `tslrec`.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.runs import run_environment
from support.waiting import HANG_SECONDS


def run_without(packages: Sequence[str], *command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program in a folder to its end.

    Args:
        packages: cannot be imported; the names of installed top-level packages, or of missing ones.
        command: the program and its arguments.
        folder: the working directory.
    """
    return subprocess.run(
        [sys.executable, __file__, ",".join(packages), *command],
        cwd=folder,
        env=run_environment(folder),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def main(packages: Sequence[str], command: Sequence[str]) -> None:
    """Runs the program in this process."""
    for package in packages:
        # So an import raises ModuleNotFoundError, and find_spec finds nothing, as if it were not installed.
        sys.modules[package] = None  # type: ignore[assignment]
    sys.argv = list(command)
    if command[0] == "tslrec":
        runpy.run_module("tslrec.cli.main", run_name="__main__")
    else:
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1].split(","), sys.argv[2:])

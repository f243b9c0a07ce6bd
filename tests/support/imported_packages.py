"""Which heavy packages a program imports: `python imported_packages.py PROGRAM ARGUMENTS…`.

PROGRAM is the file of a Python program, or `tslrec`. The last line of the standard output is JSON: the program's exit
code, and the heavy packages that are imported when it ends.
"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support.runs import run_environment
from support.waiting import HANG_SECONDS

HEAVY = ("torch", "lightning", "transformers", "peft", "polars", "sklearn", "numpy", "scipy", "pandas", "wandb")
"""Packages that take a noticeable part of a second to import."""


@dataclass(frozen=True)
class Ended:
    """How a program ended: exit code, standard output, and the heavy packages that it had imported by then."""

    code: int
    out: str
    heavy: list[str]


def run_and_list_imports(program: str, *arguments: str, folder: Path) -> Ended:
    """Runs a program in a folder to its end."""
    run = subprocess.run(
        [sys.executable, __file__, program, *arguments],
        cwd=folder,
        env=run_environment(folder),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=True,
    )
    *lines, last = run.stdout.splitlines()
    return Ended(out="\n".join(lines), **json.loads(last))


def main(program: str, arguments: list[str]) -> None:
    """Runs the program in this process, and prints what it has imported."""
    sys.argv = [program, *arguments]
    code: object = 0
    try:
        if program == "tslrec":
            runpy.run_module("tslrec.cli.main", run_name="__main__")
        else:
            runpy.run_path(program, run_name="__main__")
    except SystemExit as ended:
        code = ended.code or 0
    print(json.dumps({"code": code, "heavy": [name for name in HEAVY if name in sys.modules]}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

"""How soon the command line answers: `make bench-startup`.

Each command is a new process from start to exit, run several times. Ends with one line per figure, `name value unit`:
the median wall time in seconds. The first run of each fills the disk cache and is not counted. The machine should do
nothing else.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAIN = [str(ROOT / "train.py")]
TSLREC = ["-m", "tslrec.cli.main"]
COMMANDS = {
    "startup_train_help": ([*TRAIN, "--help"], 0),
    "startup_train_typo": ([*TRAIN, "model.hiden_size=3"], 2),
    "startup_tslrec_help": ([*TSLREC, "--help"], 0),
}
"""By the name of the figure: the arguments of Python, and the exit code."""


def main(words: Sequence[str]) -> None:
    """Measures every command and prints its figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, metavar="N", help="runs of each command that count; default 9")
    arguments = parser.parse_args(words)
    for name, (command, code) in COMMANDS.items():
        print(name, f"{median_seconds(command, code, arguments.runs):.3f}", "s", flush=True)


def median_seconds(arguments: Sequence[str], code: int, runs: int) -> float:
    """The median wall time of a Python program, in seconds.

    Args:
        arguments: of the Python interpreter.
        code: the exit code that the program must have.
        runs: how many runs count, at least 1.

    Raises:
        RuntimeError: if a run has another exit code; its time would be that of something else.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    seconds = []
    for _ in range(1 + runs):
        began = time.perf_counter()
        run = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        seconds.append(time.perf_counter() - began)
        if run.returncode != code:
            raise RuntimeError(f"{' '.join(arguments)}: exit code {run.returncode} instead of {code}: {run.stderr}")
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main(sys.argv[1:])

"""How soon the command line and the Python package answer: `make bench-startup`.

Each command is a new process from start to exit, run several times. Ends with one line per figure, `name value unit`:
the median wall time in seconds. The first run of each fills the disk cache and is not counted. The machine should do
nothing else.

The first recommendation comes from the ONNX graph of an exported folder: `tslrec.load`, and ten items for one history.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAIN = [str(ROOT / "train.py")]
TSLREC = ["-m", "tslrec.cli.main"]
COMMANDS = {
    "startup_train_help": ([*TRAIN, "--help"], 0),
    "startup_train_typo": ([*TRAIN, "model.hiden_size=3"], 2),
    "startup_tslrec_help": ([*TSLREC, "--help"], 0),
    "startup_python": (["-c", "pass"], 0),
    "startup_import_tslrec": (["-c", "import tslrec"], 0),
}
"""By the name of the figure: the arguments of Python, and the exit code. `startup_python` is the interpreter alone."""
FIRST = "startup_first_recommendation"
ASK = """
import sys
import tslrec

recommender = tslrec.load(sys.argv[1], engine="onnxruntime")
assert len(recommender.recommend([recommender.catalogue.raw_ids[1:4].to_list()], k=10)) == 10
assert "torch" not in sys.modules
"""
SMALL_RUN = ["method=base", "model=sasrec", "training.max_epochs=1", "trainer=cpu"]
"""Overrides of the run that is exported where no folder is given: the generated data set, 240 items."""


def main(words: Sequence[str]) -> None:
    """Measures every command and prints its figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, metavar="N", help="runs of each command that count; default 9")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="to load; default: one of a small run, made now")
    arguments = parser.parse_args(words)
    for name, (command, code) in COMMANDS.items():
        print(name, f"{median_seconds(command, code, arguments.runs):.3f}", "s", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        exported = arguments.export or small_export(Path(temporary))
        seconds = median_seconds(["-c", ASK, str(exported.resolve())], 0, arguments.runs)
    print(FIRST, f"{seconds:.3f}", "s", flush=True)


def small_export(folder: Path) -> Path:
    """Trains a small run in a folder, and exports it there with an ONNX graph."""
    places = [f"artifacts={folder / 'artifacts'}", f"cache={folder / 'cache'}"]
    exported = folder / "exported"
    for command in (
        [*TRAIN, *SMALL_RUN, *places],
        [*TSLREC, "export", str(folder / "artifacts"), "--to", str(exported), "--onnx"],
    ):
        subprocess.run([sys.executable, *command], cwd=ROOT, env=environment(), capture_output=True, check=True)
    return exported


def median_seconds(arguments: Sequence[str], code: int, runs: int) -> float:
    """The median wall time of a Python program, in seconds.

    Args:
        arguments: of the Python interpreter.
        code: the exit code that the program must have.
        runs: how many runs count, at least 1.

    Raises:
        RuntimeError: if a run has another exit code; its time would be that of something else.
    """
    seconds = []
    for _ in range(1 + runs):
        began = time.perf_counter()
        run = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
        )
        seconds.append(time.perf_counter() - began)
        if run.returncode != code:
            raise RuntimeError(f"{' '.join(arguments)}: exit code {run.returncode} instead of {code}: {run.stderr}")
    return statistics.median(seconds[1:])


def environment() -> Mapping[str, str]:
    """The variables that a program runs with: the checkout's sources, and one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    main(sys.argv[1:])

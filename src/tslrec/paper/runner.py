"""Runs the cells that are missing, several at a time, each a `train.py` of its own; one that fails ends no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from tslrec.choices import config_folder
from tslrec.composition import compose_overrides
from tslrec.errors import StoppedError, UserError
from tslrec.paper.cells import CellResult, read_cell
from tslrec.paper.grid import Cell
from tslrec.report import PROTOCOLS
from tslrec.summary import setting

MOST_AT_ONCE = 4
"""Cells that run side by side unless more are asked for: each has the memory of a training of its own."""


def cores() -> int:
    """Of the machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def missing_cells(cells: Sequence[Cell], folder: Path, tell: Callable[[str], None]) -> list[Cell]:
    """The cells that there is no result of, or one of other settings than the configuration has by now.

    Raises:
        UserError: if a result cannot be read.
    """
    found = []
    for cell in cells:
        path = folder / f"{cell.name}.json"
        if not path.is_file():
            found.append(cell)
        elif changed := changes(cell, read_cell(path)):
            tell(f"{cell.name}: is of other settings ({', '.join(changed)}) and will be run again")
            found.append(cell)
    return found


def changes(cell: Cell, done: CellResult) -> list[str]:
    """`KEY=VALUE, now OTHER` for each setting in which a result is not what its command would run today."""
    # No setting depends on the seed, and composing takes a third of a second.
    now = setting_of(tuple(text for text in cell.overrides if not text.startswith("seed=")), cell.method)
    then = setting(done.content)
    keys = dict.fromkeys([*then, *now])
    return [f"{key}={then.get(key)}, now {now.get(key)}" for key in keys if then.get(key) != now.get(key)]


@cache
def setting_of(overrides: tuple[str, ...], method: str) -> dict[str, Any]:
    """What a command line would set today, as it would be read from its result."""
    config = json.loads(json.dumps(asdict(compose_overrides(overrides))))
    return setting({"config": config, "method": method})


class Runner:
    """Runs cells.

    Args:
        folder: where the finished cells go.
        artifacts: the artifacts folder of the runs; their output goes to `paper/NAME.log` in it.
        jobs: cells at a time.
        threads: of each of them.
        tell: called with one line for each event.
    """

    def __init__(self, folder: Path, artifacts: Path, *, jobs: int, threads: int, tell: Callable[[str], None]) -> None:
        self.folder = folder
        self.artifacts = artifacts
        self.jobs = jobs
        self.threads = threads
        self.tell = tell
        self.running: set[subprocess.Popen[bytes]] = set()
        self.lock = threading.Lock()
        self.received: int | None = None

    def run(self, cells: Sequence[Cell]) -> None:
        """Runs all of them, in their order, as far as they do not fail.

        Raises:
            UserError: naming those that failed, once all were run.
            StoppedError: if a signal ended it; the runs write their checkpoints first.
        """
        with self.signals(), ThreadPoolExecutor(self.jobs) as pool:
            outcomes = list(pool.map(self.run_cell, cells))
        if self.received is not None:
            name = signal.Signals(self.received).name
            raise StoppedError(f"paper: stopped by {name}; the same command goes on", self.received)
        failed = [cell.name for cell, ended_well in zip(cells, outcomes, strict=True) if not ended_well]
        if failed:
            raise UserError(
                f"{len(failed)} of {len(cells)} cells failed ({', '.join(failed)}); see their .log in "
                f"{self.artifacts / 'paper'}, and run this again"
            )

    def run_cell(self, cell: Cell) -> bool:
        """Runs a cell and collects it; False if it failed, or was not begun for a signal that had come."""
        log = self.artifacts / "paper" / f"{cell.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        arguments = [*cell.overrides, f"artifacts={self.artifacts}"]
        with log.open("wb") as output:
            process = self.start([sys.executable, str(config_folder().parent / "train.py"), *arguments], output)
            if process is None:
                return False
            self.tell(f"{cell.name}: running")
            code = process.wait()
            with self.lock:
                self.running.discard(process)
        if code != 0:
            self.tell(f"{cell.name}: failed with exit code {code} ({last_line(log)})")
            return False
        try:
            done = self.collect(cell, arguments)
        except Exception as error:
            # A cell that cannot be collected must not end the others; a defect's traceback is kept.
            with log.open("a", encoding="utf-8") as output_text:
                traceback.print_exc(file=output_text)
            self.tell(f"{cell.name}: failed ({type(error).__name__}: {error})")
            return False
        metrics = done.content["metrics"]
        shown = ", ".join(f"{title} {metrics[f'test/{name}/NDCG@10']:.4f}" for name, title in PROTOCOLS.items())
        self.tell(f"{cell.name}: done in {time.monotonic() - began:,.0f} s, test NDCG@10 {shown}")
        return True

    def start(self, command: list[str], output: Any) -> subprocess.Popen[bytes] | None:
        """Starts a process, unless this one was asked to end."""
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "OMP_NUM_THREADS": str(self.threads)}
        with self.lock:
            if self.received is not None:
                return None
            # In a session of its own, so that an interrupt from the keyboard reaches it through `stop`, in good order.
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            self.running.add(process)
            return process

    def collect(self, cell: Cell, arguments: list[str]) -> CellResult:
        from tslrec.paper.collect import collect

        result, threads = result_of(arguments, self.artifacts)
        return collect(cell, result, threads, self.artifacts, self.folder)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While it lasts, SIGTERM and an interrupt from the keyboard end the running cells in good order."""
        before = {number: signal.signal(number, self.stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self, number: int, frame: object) -> None:
        self.received = number
        for process in list(self.running):
            process.send_signal(signal.SIGTERM)


def result_of(arguments: Sequence[str], artifacts: Path) -> tuple[dict[str, Any], str | None]:
    """What the run of a command line recorded last, and the threads that it had.

    Raises:
        UserError: if there is none.
    """
    paths = sorted((artifacts / "runs").glob("*/result.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in paths:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["command"][2:] == list(arguments):
            return content["results"][-1], content["threads"]
    raise UserError(f"{artifacts / 'runs'}: no result of this cell, though its run ended well; run this again")


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"

"""Runs missing cells, several at a time, each as its own `train.py` process; a failing one does not stop the others."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from tslrec.config import Config
from tslrec.evaluation.protocols import PROTOCOLS
from tslrec.pipeline.choices import config_folder
from tslrec.pipeline.composition import Composer, composing
from tslrec.pipeline.members import composer_of
from tslrec.pipeline.result_settings import setting
from tslrec.reports.paper.cells import CellResult, read_cell
from tslrec.reports.paper.grid import Cell
from tslrec.stages.method_stages import reads_members
from tslrec.system.errors import StoppedError, UserError
from tslrec.system.run_files import RUNS, result_paths

log = logging.getLogger(__name__)

MOST_AT_ONCE = 4
"""Cells that run at the same time by default: each needs the memory of a whole training."""


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def missing_cells(cells: Sequence[Cell], folder: Path) -> list[Cell]:
    """The cells that have no result, or a result made with other settings than the configuration has today.

    Raises:
        UserError: if a result cannot be read.
    """
    found = []
    for cell in cells:
        path = folder / f"{cell.name}.json"
        if not path.is_file():
            found.append(cell)
        elif changed := changes(cell, read_cell(path)):
            log.info(f"{cell.name}: is of other settings ({', '.join(changed)}) and will be run again")
            found.append(cell)
    return found


def changes(cell: Cell, done: CellResult) -> list[str]:
    """`KEY=VALUE, now OTHER` for each setting of a result that differs from what its command would set today."""
    # No setting but a member's seed depends on the seed, and composing takes a third of a second.
    with_members = any(text.startswith("members=") for text in cell.overrides)
    kept = tuple(text for text in cell.overrides if with_members or not text.startswith("seed="))
    now = setting_of(kept, cell.method)
    then = setting(done.content)
    keys = dict.fromkeys([*then, *now])
    return [f"{key}={then.get(key)}, now {now.get(key)}" for key in keys if then.get(key) != now.get(key)]


@cache
def setting_of(overrides: tuple[str, ...], method: str) -> dict[str, Any]:
    """The settings of a command line today, in the form in which results record them."""
    with composing():
        composer = Composer(overrides)
        config = composer.config()
        members = [composer_of(words, composer).config() for words in config.members] if reads_members(config) else []
    return setting({**settled(config), "method": method, "members": [settled(each) for each in members]})


def settled(config: Config) -> dict[str, Any]:
    """A configuration as results record it, with what `setting` reads beside it."""
    return {"config": json.loads(json.dumps(asdict(config))), "method": config.method.name, "seed": config.seed}


class Runner:
    """Runs cells.

    Args:
        folder: the folder of the finished cells.
        artifacts: the artifacts folder of the runs; each run's output goes to `paper/NAME.log` in it.
        jobs: cells that run at the same time.
        threads: threads of each run.
    """

    def __init__(self, folder: Path, artifacts: Path, *, jobs: int, threads: int) -> None:
        self.folder = folder
        self.artifacts = artifacts
        self.jobs = jobs
        self.threads = threads
        self.running: set[subprocess.Popen[bytes]] = set()
        self.lock = threading.Lock()
        self.received: int | None = None

    def run(self, cells: Sequence[Cell]) -> None:
        """Runs all cells, in order.

        Raises:
            UserError: after the last run, naming the cells that failed.
            StoppedError: if a signal arrived; the runs write their checkpoints first.
        """
        with self.signals(), ThreadPoolExecutor(self.jobs) as pool:
            outcomes = list(pool.map(self.run_cell, cells))
        if self.received is not None:
            name = signal.Signals(self.received).name
            raise StoppedError(f"paper: stopped by {name}; the same command goes on", self.received)
        failed = [cell.name for cell, ended_well in zip(cells, outcomes, strict=True) if not ended_well]
        if failed:
            raise UserError(
                f"{len(failed)} of {len(cells)} cells failed ({', '.join(failed)}); read their .log files in "
                f"{self.artifacts / 'paper'}, then run this again"
            )

    def run_cell(self, cell: Cell) -> bool:
        """Runs a cell and collects its result; False if it failed, or if a signal had arrived before it started."""
        output_file = self.artifacts / "paper" / f"{cell.name}.log"
        output_file.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        arguments = [*cell.overrides, f"artifacts={self.artifacts}"]
        with output_file.open("wb") as output:
            process = self.start([sys.executable, str(config_folder().parent / "train.py"), *arguments], output)
            if process is None:
                return False
            log.info(f"{cell.name}: running")
            code = process.wait()
            with self.lock:
                self.running.discard(process)
        if code != 0:
            log.info(f"{cell.name}: failed with exit code {code} ({last_line(output_file)})")
            return False
        try:
            done = self.collect(cell, arguments)
        except Exception as error:
            # A cell that cannot be collected must not stop the others; its log keeps the traceback.
            with output_file.open("a", encoding="utf-8") as output_text:
                traceback.print_exc(file=output_text)
            log.info(f"{cell.name}: failed ({type(error).__name__}: {error})")
            return False
        metrics = done.content["metrics"]
        shown = ", ".join(f"{title} {metrics[f'test/{name}/NDCG@10']:.4f}" for name, title in PROTOCOLS.items())
        log.info(f"{cell.name}: done in {time.monotonic() - began:,.0f} s, test NDCG@10 {shown}")
        return True

    def start(self, command: list[str], output: Any) -> subprocess.Popen[bytes] | None:
        """Starts a process; None if a signal has already arrived."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        with self.lock:
            if self.received is not None:
                return None
            # In its own session: Ctrl-C then reaches it only through `stop`, as one SIGTERM.
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            self.running.add(process)
            if self.received is not None:
                # A signal that arrived while it was started has not reached it.
                process.send_signal(signal.SIGTERM)
            return process

    def collect(self, cell: Cell, arguments: list[str]) -> CellResult:
        """Writes the cell of a finished run."""
        from tslrec.reports.paper.collect import collect

        result, threads = result_of(arguments, self.artifacts)
        return collect(cell, result, threads, self.artifacts, self.folder)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While active, SIGTERM, Ctrl-C and a closed terminal end the running cells, which write checkpoints first."""
        stopping = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self.stop) for number in stopping}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self, number: int, frame: object) -> None:
        """Signal handler: passes SIGTERM to the running cells; no further cell starts."""
        self.received = number
        for process in list(self.running):
            process.send_signal(signal.SIGTERM)


def result_of(arguments: Sequence[str], artifacts: Path) -> tuple[dict[str, Any], str | None]:
    """The newest result that a command line's run recorded, and its value of `OMP_NUM_THREADS`.

    Raises:
        UserError: if there is none.
    """
    for path in reversed(result_paths(artifacts)):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["command"][2:] == list(arguments):
            return content["results"][-1], content["threads"]
    raise UserError(f"{artifacts / RUNS}: no result of this cell, although its run succeeded; run this again")


def last_line(path: Path) -> str:
    """The last line of a log that is not blank."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"

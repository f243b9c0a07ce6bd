"""The record of a sweep on disk: which runs it has, and the state of each.

`sweep.json` lists the command line of each run (a cell of the sweep). Each run writes `cells/NNNN.json` itself, and
holds the lock `cells/NNNN.lock` while it works. So every reader of the folder, on any machine that shares the disk,
sees the same states, and can tell a killed run (no lock) from a running one.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from tslrec.system.errors import UserError
from tslrec.system.files import write_json
from tslrec.system.manifests import KEY_LENGTH, is_free
from tslrec.system.run_files import RESULT_FILE

if TYPE_CHECKING:
    from filelock import BaseFileLock

SWEEPS = "sweeps"
SWEEP_FILE = "sweep.json"
CELLS = "cells"
LABEL_LENGTH = 60
"""Characters of a sweep folder's name before its key, at most."""


class CellState(StrEnum):
    """The state of a run of a sweep."""

    DONE = "done"
    RUNNING = "running"
    STOPPED = "stopped"
    """Ended by a signal, or killed; the same command resumes it."""
    FAILED = "failed"
    MISSING = "missing"
    """It has not begun, or its record or its result is gone."""


@dataclass(frozen=True)
class Cell:
    """A run of a sweep.

    Attributes:
        number: its position in the sweep, from 0.
        title: the words of its command line that not all runs of the sweep have.
        state: its state.
        note: why it failed or stopped, and its SLURM job.
        result: the folder of its recorded result; None if it has none.
        fingerprint: of its configuration (`tslrec.pipeline.sweeps.fingerprint`).
    """

    number: int
    title: str
    state: CellState
    note: str = ""
    result: Path | None = None
    fingerprint: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether it finished."""
        return self.state is CellState.DONE


@dataclass(frozen=True)
class Sweep:
    """Runs that one command starts.

    Attributes:
        folder: where the sweep is recorded.
        program: the program that each run starts, `train.py`.
        cells: the choices and settings of each run's command line.
        options: what stands before them on every command line: where the configurations are (`--config-dir` …).
    """

    folder: Path
    program: Path
    cells: tuple[tuple[str, ...], ...]
    options: tuple[str, ...] = ()

    @classmethod
    def of(cls, root: Path, program: Path, cells: Sequence[Sequence[str]], options: Sequence[str] = ()) -> Sweep:
        """The sweep of some runs, in a folder named by a hash of their command lines: the same runs, the same folder.

        Args:
            root: the folder of all sweeps.
            program: the program that each run starts.
            cells: the command line of each run. The launcher is not part of the hash. A command line that occurs again,
                as of `seed=0,0`, is one run.
            options: what stands before it; not part of the hash.
        """
        lines = tuple(dict.fromkeys(tuple(each) for each in cells))
        runs = sorted(sorted(word for word in each if not word.startswith("launcher=")) for each in lines)
        key = hashlib.sha256(json.dumps(runs).encode()).hexdigest()[:KEY_LENGTH]
        swept = dict.fromkeys(word.split("=")[0] for each in differing_words(lines) for word in each)
        label = re.sub(r"[^\w.]+", "-", "-".join(swept)).strip("-")[:LABEL_LENGTH] or "run"
        return cls(root / f"{label}-{key}", program, lines, tuple(options))

    @classmethod
    def read(cls, folder: Path) -> Sweep:
        """Reads a recorded sweep.

        Raises:
            UserError: if its record cannot be read.
        """
        path = folder / SWEEP_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            cells = tuple(tuple(each) for each in content["cells"])
            return cls(folder, Path(content["program"]), cells, tuple(content.get("options", ())))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not the record of a sweep ({error!r}); delete its folder") from error

    def write(self) -> None:
        """Writes `sweep.json`.

        Raises:
            UserError: if the folder cannot be written.
        """
        try:
            (self.folder / CELLS).mkdir(parents=True, exist_ok=True)
            content = {"program": str(self.program), "options": self.options, "cells": self.cells}
            write_json(self.folder / SWEEP_FILE, content)
        except OSError as error:
            raise UserError(
                f"{error.filename or self.folder}: {error.strerror or error}; set artifacts=FOLDER"
            ) from error

    def number_of(self, words: Sequence[str]) -> int:
        """The number of the run with this command line."""
        return self.cells.index(tuple(words))

    def command(self, number: int) -> list[str]:
        """The command line that starts a run, with this Python."""
        return [sys.executable, str(self.program), *self.options, *self.cells[number]]

    def record(self, number: int) -> Path:
        """The file in which a run records its state."""
        return self.folder / CELLS / f"{number:04d}.json"

    def log(self, number: int) -> Path:
        """The file for the output of a run that shares its terminal with others."""
        return self.record(number).with_suffix(".log")

    def status(self) -> list[Cell]:
        """The state of each run, as it is now."""
        titles = [" ".join(each) or "the run" for each in differing_words(self.cells)]
        return [read_cell(self.record(number), number, title) for number, title in enumerate(titles)]


def differing_words(cells: Sequence[Sequence[str]]) -> list[list[str]]:
    """For each command line, the words that not all command lines have."""
    counts = Counter(word for each in cells for word in set(each))
    return [[word for word in each if counts[word] < len(cells)] for each in cells]


def read_cell(path: Path, number: int, title: str) -> Cell:
    """Reads a run's record, and checks by its lock whether the run is still working.

    Args:
        path: the record, which need not exist.
        number: of the run.
        title: of the run.
    """
    # The lock is asked first: a run that ends in between has written its record by then.
    working = not is_free(lock_of(path))
    if not path.is_file():
        return Cell(number, title, CellState.RUNNING if working else CellState.MISSING)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        state, note, result = CellState(content["state"]), str(content["note"]), content["result"]
    except (ValueError, KeyError, TypeError) as error:
        return Cell(number, title, CellState.MISSING, f"{path}: not readable ({error!r})")
    if state is CellState.RUNNING and not working:
        return Cell(number, title, CellState.STOPPED, note=" ".join(filter(None, ["killed", note])))
    if state is CellState.DONE and result is not None:
        folder = path.parent / result
        if not (folder / RESULT_FILE).is_file():
            return Cell(number, title, CellState.MISSING, "its result was removed")
        return Cell(number, title, state, note, folder, content.get("fingerprint"))
    return Cell(number, title, CellState.RUNNING if working else state, note)


def lock_of(record: Path) -> BaseFileLock:
    """The lock that a run holds while it works.

    Args:
        record: the run's record.
    """
    from filelock import FileLock

    return FileLock(record.with_suffix(".lock"))


def sweeps_at(folder: Path) -> list[Sweep]:
    """The sweep recorded in this folder, or all sweeps of an artifacts folder.

    Raises:
        UserError: if a sweep's record cannot be read.
    """
    if (folder / SWEEP_FILE).is_file():
        return [Sweep.read(folder)]
    return [Sweep.read(path.parent) for path in sorted((folder / SWEEPS).glob(f"*/{SWEEP_FILE}"))]

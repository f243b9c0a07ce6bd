"""A sweep on disk: which runs it has, and what became of each of them.

`sweep.json` lists the cells: the command line of each run. `cells/NNNN.json` is written by the run itself, which holds
`cells/NNNN.lock` while it goes on. So whoever looks at the folder, at any time and on any machine that shares the
disk, sees the same, and a run that was killed is told from one that still works.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tslrec.artifacts import KEY_LENGTH, is_free
from tslrec.errors import UserError
from tslrec.files import write_json

SWEEPS = "sweeps"
SWEEP_FILE = "sweep.json"
CELLS = "cells"
LABEL_LENGTH = 60


class CellState(StrEnum):
    """What became of a run of a sweep."""

    DONE = "done"
    RUNNING = "running"
    STOPPED = "stopped"
    """By a signal, or killed; the same command goes on with it."""
    FAILED = "failed"
    MISSING = "missing"
    """It never began."""


@dataclass(frozen=True)
class Cell:
    """A run of a sweep.

    Attributes:
        number: its place in the sweep.
        title: those of its choices and settings in which the sweep's runs differ.
        state: what became of it.
        note: why it failed or stopped, and its SLURM job.
        result: the folder of what it reached; None where there is nothing to show.
        fingerprint: of how it was run (`tslrec.finished`).
    """

    number: int
    title: str
    state: CellState
    note: str = ""
    result: Path | None = None
    fingerprint: str | None = None

    @property
    def is_done(self) -> bool:
        return self.state is CellState.DONE


@dataclass(frozen=True)
class Sweep:
    """Runs that were started together.

    Attributes:
        folder: where it is recorded.
        program: what each of its runs starts, `train.py`.
        cells: by run, the choices and settings of its command line.
    """

    folder: Path
    program: Path
    cells: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, root: Path, program: Path, cells: Sequence[Sequence[str]]) -> Sweep:
        """The sweep of these runs, in a folder that their command lines name: the same runs have the same.

        Args:
            root: the folder of sweeps.
            program: what each run starts.
            cells: by run, its command line; how it is launched does not count.
        """
        lines = tuple(tuple(each) for each in cells)
        runs = sorted(sorted(word for word in each if not word.startswith("launcher=")) for each in lines)
        key = hashlib.sha256(json.dumps(runs).encode()).hexdigest()[:KEY_LENGTH]
        swept = dict.fromkeys(word.split("=")[0] for each in differing(lines) for word in each)
        label = re.sub(r"[^\w.]+", "-", "-".join(swept)).strip("-")[:LABEL_LENGTH] or "run"
        return cls(root / f"{label}-{key}", program, lines)

    @classmethod
    def read(cls, folder: Path) -> Sweep:
        """A recorded sweep.

        Raises:
            UserError: if it cannot be read.
        """
        path = folder / SWEEP_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(folder, Path(content["program"]), tuple(tuple(each) for each in content["cells"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not the record of a sweep ({error!r}); delete its folder") from error

    def write(self) -> None:
        """Records which runs there are.

        Raises:
            UserError: if the disk does not let it.
        """
        try:
            (self.folder / CELLS).mkdir(parents=True, exist_ok=True)
            write_json(self.folder / SWEEP_FILE, {"program": str(self.program), "cells": self.cells})
        except OSError as error:
            raise UserError(
                f"{error.filename or self.folder}: {error.strerror or error}; set artifacts=FOLDER"
            ) from error

    def number_of(self, words: Sequence[str]) -> int:
        """The place of a run, by its command line."""
        return self.cells.index(tuple(words))

    def record(self, number: int) -> Path:
        """Where a run says what became of it."""
        return self.folder / CELLS / f"{number:04d}.json"

    def log(self, number: int) -> Path:
        """Where the output of a run goes that has no terminal to itself."""
        return self.record(number).with_suffix(".log")

    def status(self) -> list[Cell]:
        """What became of each run so far."""
        titles = [" ".join(each) or "the run" for each in differing(self.cells)]
        return [read_cell(self.record(number), number, title) for number, title in enumerate(titles)]


def differing(cells: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of each command line the words that not all of them have."""
    counts = Counter(word for each in cells for word in set(each))
    return [[word for word in each if counts[word] < len(cells)] for each in cells]


def read_cell(path: Path, number: int, title: str) -> Cell:
    """What a run recorded, and whether it is still there."""
    # The lock first: a run that ends in between has written its record by then.
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
        if not (folder / "result.json").is_file():
            return Cell(number, title, CellState.MISSING, "its result was removed")
        return Cell(number, title, state, note, folder, content.get("fingerprint"))
    return Cell(number, title, CellState.RUNNING if working else state, note)


def lock_of(record: Path) -> Any:
    """Held by the run of a cell."""
    from filelock import FileLock

    return FileLock(record.with_suffix(".lock"))


def sweeps_at(folder: Path) -> list[Sweep]:
    """The sweep whose folder this is, or all that are recorded in an artifacts folder.

    Raises:
        UserError: if one of them cannot be read.
    """
    if (folder / SWEEP_FILE).is_file():
        return [Sweep.read(folder)]
    return [Sweep.read(path.parent) for path in sorted((folder / SWEEPS).glob(f"*/{SWEEP_FILE}"))]

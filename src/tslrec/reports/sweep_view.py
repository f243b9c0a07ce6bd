"""Prints the state of a sweep: the table of its finished runs, and a line for each unfinished one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tslrec.pipeline.recorded_results import read_result
from tslrec.pipeline.sweeps.record import Cell, Sweep
from tslrec.reports.summary import summarise
from tslrec.reports.summary_view import print_summary
from tslrec.system.consoles import plain_console
from tslrec.system.errors import UserError


def print_end(sweep: Sweep) -> None:
    """Prints the table of a sweep whose launcher has ended.

    Raises:
        UserError: if some runs did not finish.
    """
    cells = sweep.status()
    console = plain_console()
    if results := results_of(cells):
        print_summary(summarise(results), console)
    folder = Path(os.path.relpath(sweep.folder))
    print_unfinished(cells, None, plain_console(stderr=True))
    if lacking := sum(not cell.is_done for cell in cells):
        raise UserError(
            f"{lacking} of {len(cells)} runs did not finish; the same command resumes them, and "
            f"`tslrec report {folder}` shows the progress"
        )
    console.print(f"All {len(cells)} runs are done: {folder}", soft_wrap=True)


def progress(cells: Sequence[Cell], cell: Cell, why: str = "") -> str:
    """A line about the state of a run.

    Args:
        cells: all runs of the sweep in their current state.
        cell: the run.
        why: the reason to print for an unfinished run whose record has no note.
    """
    line = f"[{sum(each.is_done for each in cells)}/{len(cells)}] {cell.state}: {cell.title}"
    note = "" if cell.is_done else cell.note or why
    return f"{line}: {note}" if note else line


def results_of(cells: Sequence[Cell]) -> list[Mapping[str, Any]]:
    """The results of the finished runs.

    Raises:
        UserError: if a result cannot be read.
    """
    folders = dict.fromkeys(cell.result for cell in cells if cell.is_done and cell.result is not None)
    return [result for folder in folders for result in read_result(folder / "result.json")]


def print_unfinished(cells: Sequence[Cell], folder: Path | None, console: Console) -> None:
    """Prints a line for each unfinished run; `folder` is printed above them unless it is None."""
    unfinished = [cell for cell in cells if not cell.is_done]
    if unfinished and folder is not None:
        console.print(f"\n{folder}: {len(unfinished)} of {len(cells)} runs are not finished", soft_wrap=True)
    for cell in unfinished:
        line = f"{cell.state:8} {cell.title}" + (f": {cell.note}" if cell.note else "")
        console.print(line, soft_wrap=True)

"""What became of a sweep, as a person reads it: the table of what finished, and a line for each run that did not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tslrec.errors import UserError
from tslrec.summary import read_result, summarise
from tslrec.summary_view import print_summary
from tslrec.sweep import Cell, Sweep


def print_end(sweep: Sweep) -> None:
    """The table of a sweep whose launcher is done.

    Raises:
        UserError: if runs did not finish.
    """
    cells = sweep.status()
    console = Console()
    if results := results_of(cells):
        print_summary(summarise(results), console)
    folder = Path(os.path.relpath(sweep.folder))
    print_unfinished(cells, None, Console(stderr=True))
    if lacking := sum(not cell.is_done for cell in cells):
        raise UserError(
            f"{lacking} of {len(cells)} runs did not finish; the same command goes on with them, and "
            f"`tslrec report {folder}` says how far it is"
        )
    console.print(f"All {len(cells)} runs are done: {folder}", highlight=False, soft_wrap=True)


def progress(cells: Sequence[Cell], cell: Cell, why: str = "") -> str:
    """A line on what became of a run.

    Args:
        cells: of the sweep, as they are now.
        cell: the run.
        why: said of one that is not finished, where its record says nothing.
    """
    line = f"[{sum(each.is_done for each in cells)}/{len(cells)}] {cell.state}: {cell.title}"
    note = "" if cell.is_done else cell.note or why
    return f"{line}: {note}" if note else line


def results_of(cells: Sequence[Cell]) -> list[Mapping[str, Any]]:
    """What the finished runs reached.

    Raises:
        UserError: if a result cannot be read.
    """
    folders = dict.fromkeys(cell.result for cell in cells if cell.is_done and cell.result is not None)
    return [result for folder in folders for result in read_result(folder / "result.json")]


def print_unfinished(cells: Sequence[Cell], folder: Path | None, console: Console) -> None:
    """A line for each run that is not finished, below the folder of the sweep if it is to be named."""
    unfinished = [cell for cell in cells if not cell.is_done]
    if unfinished and folder is not None:
        console.print(
            f"\n{folder}: {len(unfinished)} of {len(cells)} runs are not finished", highlight=False, soft_wrap=True
        )
    for cell in unfinished:
        line = f"{cell.state:8} {cell.title}" + (f": {cell.note}" if cell.note else "")
        console.print(line, highlight=False, soft_wrap=True, markup=False)

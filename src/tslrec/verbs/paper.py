"""Makes the paper's tables and figures: runs the cells of a grid that are missing, and prints what they are for.

  tslrec paper
  tslrec paper table2 --draw
  tslrec paper figure5 --only 'beauty-sasrec-*' --jobs 2
  tslrec paper --list

The cells, in their order, stand in results/grid.yaml; what they reached goes to results/cells, a file a cell, which is
to be committed. A cell is a run of train.py, so what was computed before is used again, and one that was stopped goes
on; the runs' own output is in ARTIFACTS/paper.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from tslrec.errors import UserError

if TYPE_CHECKING:
    from tslrec.paper.grid import Cell

SUMMARY = "the paper's tables and figures: runs what is missing for them"
WHAT = (
    "claims",
    "table1",
    "table2",
    "figure3",
    "figure4",
    "figure5",
    "ablations",
    "learning",
    "popularity",
    "neighbours",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # Not `choices`, which would refuse the empty list.
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"{', '.join(WHAT)}; default all")
    parser.add_argument("--draw", action="store_true", help="print them from the cells that are there; run nothing")
    parser.add_argument("--list", action="store_true", help="print the cells and whether they are there; run nothing")
    parser.add_argument("--only", metavar="PATTERN", help="cells whose names are like this ('*' for anything)")
    parser.add_argument("--jobs", type=int, metavar="N", help="cells at a time; default the cores, 4 at most")
    parser.add_argument("--threads", type=int, metavar="N", help="of each; default the cores shared out")
    parser.add_argument("--results", type=Path, default=Path("results"), help="default results")
    parser.add_argument("--grid", type=Path, help="default RESULTS/grid.yaml")
    parser.add_argument("--titles", type=Path, metavar="FILE", help="CSV of MovieLens-1M's items: item_id, title")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="default artifacts")


def run(arguments: argparse.Namespace) -> None:
    """Runs the missing cells, then prints.

    Raises:
        UserError: if the grid or a cell cannot be read, or cells failed.
    """
    from rich.console import Console

    from tslrec.paper.grid import read_grid

    check_arguments(arguments)
    console = Console()

    def tell(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True, markup=False)

    if not arguments.draw:
        cells = chosen(read_grid(arguments.grid or arguments.results / "grid.yaml"), arguments)
        if arguments.list:
            for cell in cells:
                there = (arguments.results / "cells" / f"{cell.name}.json").is_file()
                tell(f"{'done   ' if there else 'missing'}  {cell.name}")
            return
        run_missing(cells, arguments, tell)
    from tslrec.paper.cells import read_cells
    from tslrec.paper.sections import make_section
    from tslrec.paper.text_view import print_section

    done = [each for each in read_cells(arguments.results / "cells") if like(each.name, arguments.only)]
    for name in arguments.what or WHAT:
        print_section(make_section(name, done, arguments.results, arguments.titles), console)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuses what argparse lets through."""
    for name in ("jobs", "threads"):
        if (number := getattr(arguments, name)) is not None and number < 1:
            raise UserError(f"--{name} {number}: must be 1 or more")
    if unknown := [name for name in arguments.what if name not in WHAT]:
        raise UserError(f"{unknown[0]}: no such table or figure; there are {', '.join(WHAT)}")
    if arguments.titles is not None and not arguments.titles.is_file():
        raise UserError(
            f"--titles {arguments.titles}: no such file; name a CSV file with the columns item_id and title"
        )


def like(name: str, pattern: str | None) -> bool:
    return pattern is None or fnmatchcase(name, pattern)


def chosen(cells: list[Cell], arguments: argparse.Namespace) -> list[Cell]:
    """The cells of the grid that were asked for."""
    from tslrec.paper.sections import wanted_by

    found = [cell for cell in cells if like(cell.name, arguments.only)]
    if not found:
        raise UserError(f"--only {arguments.only}: no cell of the grid is called so; --list shows them")
    return wanted_by(arguments.what, found) if arguments.what else found


def run_missing(cells: list[Cell], arguments: argparse.Namespace, tell: Callable[[str], None]) -> None:
    """Runs what is missing, and counts for Figure 3."""
    from tslrec.paper.figure3 import count
    from tslrec.paper.runner import MOST_AT_ONCE, Runner, cores, missing_cells

    folder = arguments.results / "cells"
    missing = missing_cells(cells, folder, tell)
    jobs = min(arguments.jobs or min(cores(), MOST_AT_ONCE), max(1, len(missing)))
    threads = arguments.threads or max(1, cores() // jobs)
    if cells:
        tell(
            f"{len(cells) - len(missing)} of {len(cells)} cells are there; {jobs} at a time, threads of each: {threads}"
        )
    if missing:
        Runner(folder, arguments.artifacts, jobs=jobs, threads=threads, tell=tell).run(missing)
    if "figure3" in arguments.what and not (arguments.results / "figure3.json").is_file():
        count(arguments.results / "figure3.json")

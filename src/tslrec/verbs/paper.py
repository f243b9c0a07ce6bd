"""Makes the paper's tables and figures: runs the cells of a grid that are missing.

  tslrec paper
  tslrec paper --only 'beauty-sasrec-*' --jobs 2
  tslrec paper --list

The cells, in their order, stand in results/grid.yaml; what they reached goes to results/cells, a file a cell, which is
to be committed. A cell is a run of train.py, so what was computed before is used again, and one that was stopped goes
on; the runs' own output is in ARTIFACTS/paper.
"""

from __future__ import annotations

import argparse
from fnmatch import fnmatchcase
from pathlib import Path

from tslrec.errors import UserError

SUMMARY = "the paper's tables and figures: runs what is missing for them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", metavar="PATTERN", help="cells whose names are like this ('*' for anything)")
    parser.add_argument("--list", action="store_true", help="print the cells and whether they are there; run nothing")
    parser.add_argument("--jobs", type=int, metavar="N", help="cells at a time; default the cores, 4 at most")
    parser.add_argument("--threads", type=int, metavar="N", help="of each; default the cores shared out")
    parser.add_argument("--grid", type=Path, default=Path("results/grid.yaml"), help="default results/grid.yaml")
    parser.add_argument("--cells", type=Path, default=Path("results/cells"), help="default results/cells")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="default artifacts")


def run(arguments: argparse.Namespace) -> None:
    """Runs the missing cells.

    Raises:
        UserError: if the grid or a cell cannot be read, or cells failed.
    """
    from rich.console import Console

    from tslrec.paper.grid import read_grid
    from tslrec.paper.runner import MOST_AT_ONCE, Runner, cores, missing_cells

    for name in ("jobs", "threads"):
        if (number := getattr(arguments, name)) is not None and number < 1:
            raise UserError(f"--{name} {number}: must be 1 or more")
    console = Console()

    def tell(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True, markup=False)

    cells = read_grid(arguments.grid)
    if arguments.only is not None:
        cells = [cell for cell in cells if fnmatchcase(cell.name, arguments.only)]
        if not cells:
            raise UserError(f"--only {arguments.only}: no cell of {arguments.grid} is called so; --list shows them")
    if arguments.list:
        for cell in cells:
            there = (arguments.cells / f"{cell.name}.json").is_file()
            tell(f"{'done   ' if there else 'missing'}  {cell.name}")
        return
    missing = missing_cells(cells, arguments.cells, tell)
    jobs = min(arguments.jobs or min(cores(), MOST_AT_ONCE), max(1, len(missing)))
    threads = arguments.threads or max(1, cores() // jobs)
    tell(f"{len(cells) - len(missing)} of {len(cells)} cells are there; {jobs} at a time, threads of each: {threads}")
    Runner(arguments.cells, arguments.artifacts, jobs=jobs, threads=threads, tell=tell).run(missing)

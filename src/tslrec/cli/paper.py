"""Makes the paper's tables and figures: runs the missing cells of the grid, then prints the tables and figures.

  tslrec paper
  tslrec paper table2 --draw
  tslrec paper figure5 --only 'beauty-sasrec-*' --jobs 2
  tslrec paper --list

results/grid.yaml lists the cells in order; their results go to results/cells, two files per cell, to be committed. A
cell is a run of train.py: it reuses stage results that exist, and a stopped cell resumes. The output of the runs is in
ARTIFACTS/paper. Cells of a method that was removed are shown, and never run.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from tslrec.reports.paper.sections import SectionInputs, make_section, section_names, wanted_by
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from tslrec.reports.paper.grid import Cell

log = logging.getLogger(__name__)

SUMMARY = "print the paper's tables and figures, after running the cells they lack"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    # Not `choices`: argparse would then refuse the empty list.
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"{', '.join(section_names())}; default all")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--draw", action="store_true", help="print them from the finished cells; run nothing")
    instead.add_argument("--list", action="store_true", help="list the cells and whether they are done; run nothing")
    parser.add_argument("--only", metavar="PATTERN", help="only cells whose names match ('*' matches anything)")
    parser.add_argument("--jobs", type=int, metavar="N", help="cells at a time; default: one per core, at most 4")
    parser.add_argument("--threads", type=int, metavar="N", help="threads per cell; default: cores divided by jobs")
    parser.add_argument("--trainer", metavar="NAME", help="run cells with this one of configs/trainer, such as gpu")
    parser.add_argument("--results", type=Path, default=Path("results"), help="of grid and cells; default results")
    parser.add_argument("--grid", type=Path, help="default RESULTS/grid.yaml")
    parser.add_argument("--titles", type=Path, metavar="FILE", help="CSV of MovieLens-1M's items: item_id, title")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="of the runs; default artifacts")


def run(arguments: argparse.Namespace) -> None:
    """Runs the missing cells, then prints the tables and figures.

    Raises:
        UserError: if an argument is wrong, the grid or a cell cannot be read, the method of all cells that are asked
            for was removed, or a cell failed.
    """
    from tslrec.reports.paper.grid import read_grid, runnable
    from tslrec.system.consoles import plain_console

    check_arguments(arguments)
    console = plain_console()

    if not arguments.draw:
        cells = chosen(read_grid(arguments.grid or arguments.results / "grid.yaml"), arguments)
        if arguments.trainer is not None:
            cells = [replace(cell, trainer=arguments.trainer) for cell in cells]
        if arguments.list:
            for cell in cells:
                there = (arguments.results / "cells" / f"{cell.name}.json").is_file()
                log.info(f"{'done' if there else 'missing' if cell.removed is None else 'removed':7}  {cell.name}")
            return
        run_missing(runnable(cells), arguments)
    from tslrec.reports.paper.cells import read_cells
    from tslrec.reports.paper.text import print_section

    done = [each for each in read_cells(arguments.results / "cells") if like(each.name, arguments.only)]
    if not done and arguments.only is not None:
        raise UserError(f"--only {arguments.only}: no finished cell matches; --list shows which are done")
    inputs = SectionInputs(done, arguments.results, arguments.titles)
    for name in arguments.what or section_names():
        print_section(make_section(name, inputs), console)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Checks what argparse does not.

    Raises:
        UserError: if an argument is wrong.
    """
    for name in ("jobs", "threads"):
        if (number := getattr(arguments, name)) is not None and number < 1:
            raise UserError(f"--{name} {number}: must be 1 or more")
    if unknown := [name for name in arguments.what if name not in section_names()]:
        raise UserError(f"{unknown[0]}: no such table or figure; choose from {', '.join(section_names())}")
    if arguments.titles is not None and not arguments.titles.is_file():
        raise UserError(
            f"--titles {arguments.titles}: no such file; name a CSV file with the columns item_id and title"
        )


def like(name: str, pattern: str | None) -> bool:
    """Whether a cell's name matches the pattern; without a pattern every name does."""
    return pattern is None or fnmatchcase(name, pattern)


def chosen(cells: list[Cell], arguments: argparse.Namespace) -> list[Cell]:
    """The cells of the grid that match the arguments.

    Raises:
        UserError: if no cell matches `--only`.
    """
    found = [cell for cell in cells if like(cell.name, arguments.only)]
    if not found:
        raise UserError(f"--only {arguments.only}: no cell of the grid matches; --list shows their names")
    return wanted_by(arguments.what, found) if arguments.what else found


def run_missing(cells: list[Cell], arguments: argparse.Namespace) -> None:
    """Runs the missing cells, and writes the counts of Figure 3 if they are requested and missing.

    Raises:
        UserError: if a cell failed.
    """
    from tslrec.reports.paper.figure3 import count
    from tslrec.reports.paper.runner import MOST_AT_ONCE, Runner, cores, missing_cells

    folder = arguments.results / "cells"
    missing = missing_cells(cells, folder)
    jobs = min(arguments.jobs or min(cores(), MOST_AT_ONCE), max(1, len(missing)))
    threads = arguments.threads or max(1, cores() // jobs)
    if cells:
        log.info(
            f"{len(cells) - len(missing)} of {len(cells)} cells are there; {jobs} run at a time, threads of "
            f"each: {threads}"
        )
    if missing:
        Runner(folder, arguments.artifacts, jobs=jobs, threads=threads).run(missing)
    if "figure3" in arguments.what and not (arguments.results / "figure3.json").is_file():
        count(arguments.results / "figure3.json")

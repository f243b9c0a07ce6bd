"""Puts finished runs side by side: seeds as mean and standard deviation; and names what a sweep still lacks.

  tslrec report                                     every run of the folder `artifacts`
  tslrec report artifacts/sweeps/method-seed-KEY    the runs of one sweep
  tslrec report /scratch/artifacts --json report.json
  tslrec report --validation                        the validation alone: to choose settings by, the test unseen

Runs that differ in more than their seed are rows of their own, and the table says in what. Runs of a sweep that
failed, were stopped, are at work or never began are a line each.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tslrec.verbs.audit import refuse_no_place

if TYPE_CHECKING:
    from tslrec.summary import Row

SUMMARY = "the finished runs side by side, mean and deviation over seeds; what a sweep lacks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("artifacts"), help="of artifacts, or of a sweep; default artifacts"
    )
    parser.add_argument("--validation", action="store_true", help="metrics of the validation, none of the test")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows and what is unfinished there as well")


def run(arguments: argparse.Namespace) -> None:
    """Prints a table for each ranking protocol, and a line for each run of a sweep that is not finished.

    Raises:
        UserError: if there is no finished run and no sweep, or one cannot be read.
    """
    if arguments.json is not None:
        refuse_no_place(arguments.json)
    from rich.console import Console

    from tslrec.files import write_json
    from tslrec.summary import read_results, summarise
    from tslrec.summary_view import print_summary
    from tslrec.sweep import SWEEP_FILE, sweeps_at
    from tslrec.sweep_view import print_unfinished, results_of

    console = Console()
    sweeps = [(sweep, sweep.status()) for sweep in sweeps_at(arguments.folder)]
    is_sweep = (arguments.folder / SWEEP_FILE).is_file()
    if is_sweep:
        results = results_of(sweeps[0][1])
    else:
        results = list(read_results(arguments.folder, none_is_an_error=not sweeps))
    rows = summarise(results)
    unfinished = [
        {"sweep": str(sweep.folder), "run": cell.title, "state": cell.state, "note": cell.note}
        for sweep, cells in sweeps
        for cell in cells
        if not cell.is_done
    ]
    if arguments.json is not None:
        content = [record(row, validation_only=arguments.validation) for row in rows]
        write_json(arguments.json, {"rows": content, "unfinished": unfinished})
    if rows:
        print_summary(rows, console, part="validation" if arguments.validation else "test")
    for sweep, cells in sweeps:
        print_unfinished(cells, None if is_sweep else sweep.folder, console)


def record(row: Row, *, validation_only: bool) -> dict[str, Any]:
    """A row as it is written to a file."""
    content = asdict(row)
    if validation_only:
        content["metrics"] = [
            {name: value for name, value in metrics.items() if not name.startswith("test/")} for metrics in row.metrics
        ]
    return content

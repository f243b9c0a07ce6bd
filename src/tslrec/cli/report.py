"""Compares finished runs, with mean and standard deviation over seeds, and lists the unfinished runs of sweeps.

  tslrec report                                     every run in the folder `artifacts`
  tslrec report artifacts/sweeps/method-seed-KEY    the runs of one sweep
  tslrec report /scratch/artifacts --json report.json
  tslrec report --validation                        validation metrics only: choose settings without seeing the test

Runs that differ in more than their seed are separate rows, and the table shows the differing settings. Each run of a
sweep that failed, was stopped, is running or has not started gets a line.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tslrec.reports import json_file

if TYPE_CHECKING:
    from tslrec.reports.summary import Row

SUMMARY = "compare finished runs, mean ± deviation over seeds; list unfinished runs of sweeps"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("artifacts"),
        help="of artifacts or a sweep; default artifacts",
    )
    parser.add_argument("--validation", action="store_true", help="validation metrics instead of test metrics")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows and the unfinished runs to FILE")


def run(arguments: argparse.Namespace) -> None:
    """Prints a table per ranking protocol, and a line per unfinished run of a sweep.

    Raises:
        UserError: if there is neither a finished run nor a sweep, or one cannot be read.
    """
    if arguments.json is not None:
        json_file.refuse_no_place(arguments.json)
    from tslrec.pipeline.recorded_results import read_results
    from tslrec.pipeline.sweeps.record import SWEEP_FILE, sweeps_at
    from tslrec.reports.summary import summarise
    from tslrec.reports.summary_view import print_summary
    from tslrec.reports.sweep_view import print_unfinished, results_of
    from tslrec.system.consoles import plain_console

    console = plain_console()
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
        json_file.write(arguments.json, {"rows": content, "unfinished": unfinished})
    if rows:
        print_summary(rows, console, part="validation" if arguments.validation else "test")
    for sweep, cells in sweeps:
        print_unfinished(cells, None if is_sweep else sweep.folder, console)


def record(row: Row, *, validation_only: bool) -> dict[str, Any]:
    """A row as JSON; of metrics with the name of a part, `PART/NAME`, only those of the validation if so wanted.

    Other parts than `test/` tell of the test, too: `retrieved/`, `unseen/`, `before/`, `warm/` and `cold/`.
    """
    content = asdict(row)
    if validation_only:
        content["metrics"] = [
            {name: value for name, value in metrics.items() if "/" not in name or name.startswith("validation/")}
            for metrics in row.metrics
        ]
    return content

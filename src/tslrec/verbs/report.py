"""Puts the finished runs of an artifacts folder side by side, a sweep's too: seeds as mean and standard deviation.

  tslrec report
  tslrec report /scratch/artifacts --json report.json

Runs that differ in more than their seed are rows of their own, and the table says in what.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from tslrec.verbs.audit import refuse_no_place

SUMMARY = "the finished runs side by side, mean and deviation over seeds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=Path("artifacts"), help="default artifacts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")


def run(arguments: argparse.Namespace) -> None:
    """Prints a table for each ranking protocol.

    Raises:
        UserError: if there is no finished run, or one cannot be read.
    """
    if arguments.json is not None:
        refuse_no_place(arguments.json)
    from rich.console import Console

    from tslrec.artifacts import write_json
    from tslrec.summary import read_results, summarise
    from tslrec.summary_view import print_summary

    rows = summarise(read_results(arguments.folder))
    if arguments.json is not None:
        write_json(arguments.json, [asdict(row) for row in rows])
    print_summary(rows, Console())

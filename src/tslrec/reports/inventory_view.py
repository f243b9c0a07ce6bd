"""Prints the inventory of an artifacts folder."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from tslrec.pipeline.inventory import Entry, State
from tslrec.pipeline.unfinished import UnfinishedRun
from tslrec.reports.whole_tables import print_table

STYLES = {State.DONE: "green", State.RUNNING: "cyan", State.STOPPED: "yellow", State.STALE: "dim", State.DAMAGED: "red"}


def print_inventory(entries: Sequence[Entry], console: Console) -> None:
    """Prints a line per entry, then the number of entries by state and their total size."""
    if not entries:
        console.print("Nothing")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage")
    table.add_column("state")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("name", overflow="fold")
    table.add_column("note", overflow="fold")
    for each in entries:
        table.add_row(each.stage, f"[{STYLES[each.state]}]{each.state}", decimal(each.size), each.name, each.note)
    print_table(table, console)
    counts = ", ".join(f"{count} {state}" for state in State if (count := sum(e.state is state for e in entries)))
    console.print(f"{counts}; {decimal(sum(each.size for each in entries))}")


def print_unfinished(runs: Sequence[UnfinishedRun], made: Sequence[Entry], console: Console) -> None:
    """Prints which runs are at work, which were interrupted, and that what they build on is kept.

    Args:
        runs: those at work and those that can be resumed.
        made: the results that are made now.
        console: on which it is printed.
    """
    for run in runs:
        when = run.began[:16].replace("T", " ")
        what = "a run is at work" if run.running else "an interrupted run can be resumed"
        line = f"{what}, begun {when} UTC ({run.place}): {run.command}; what it builds on is kept"
        if not run.running:
            line += ", --interrupted gives it up"
        console.print(line, soft_wrap=True)
    if made and not any(run.running for run in runs):
        names = ", ".join(each.name for each in made)
        line = f"a run is at work ({names}) and does not say on what: every finished result is kept"
        console.print(line, soft_wrap=True)

"""Prints the inventory of an artifacts folder."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from tslrec.pipeline.inventory import Entry, State

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
    console.print(table)
    counts = ", ".join(f"{count} {state}" for state in State if (count := sum(e.state is state for e in entries)))
    console.print(f"{counts}; {decimal(sum(each.size for each in entries))}", highlight=False)

"""Prints sections on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tslrec.reports.paper.document import Section, TableCell, TableView, chart_table
from tslrec.reports.whole_tables import print_table

WIDEST = 1000
"""Largest width of a table, in characters."""

STYLES = {"best": "bold", "second": "underline", "significant": "bold", "inconsistent": "red"}
"""The style of each `TableCell.mark`."""


def print_section(section: Section, console: Console) -> None:
    """Prints a section; charts are printed as tables of their numbers."""
    console.print(section.title, style="bold")
    console.print(section.text)
    for table in (*section.tables, *map(chart_table, section.charts), *section.more):
        console.print()
        print_whole(table_of(table), console)
        for note in table.notes:
            console.print(note, style="dim")
    if section.missing_note:
        console.print(f"Not there: {section.missing_note}")
    console.print()


def print_whole(table: Table, console: Console) -> None:
    """Prints a table at its full width into a file or a pipe; a terminal gets it in blocks that fit."""
    if console.is_terminal:
        print_table(table, console)
        return
    table.width = console.measure(table, options=console.options.update(max_width=WIDEST)).maximum
    console.print(table, crop=False, soft_wrap=True)


def table_of(view: TableView) -> Table:
    """A table for rich; columns with measured numbers are aligned to the right."""
    table = Table(title=view.title, title_justify="left", box=None, pad_edge=False)
    for i, column in enumerate(view.columns):
        measured = any(isinstance(row[i], TableCell) for row in view.rows)
        table.add_column(column, justify="right" if measured else "left", no_wrap=measured)
    for row in view.rows:
        table.add_row(
            *(Text(each.text, STYLES.get(each.mark, "")) if isinstance(each, TableCell) else each for each in row)
        )
    return table

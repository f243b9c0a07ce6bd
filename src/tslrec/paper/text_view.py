"""Tables and figures as text, for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tslrec.paper.views import Section, Shown, TableView, chart_table

WIDEST = 1000
STYLES = {"best": "bold", "second": "underline", "significant": "bold", "doubt": "red"}


def print_section(section: Section, console: Console) -> None:
    """Prints a section; of its charts the numbers."""
    console.print(section.title, style="bold", highlight=False)
    console.print(section.text, highlight=False, markup=False)
    for table in (*section.tables, *map(chart_table, section.charts), *section.more):
        console.print()
        print_whole(table_of(table), console)
        for note in table.notes:
            console.print(note, style="dim", highlight=False, markup=False)
    if section.wanting:
        console.print(f"Not there: {section.wanting}", highlight=False, markup=False)
    console.print()


def print_whole(table: Table, console: Console) -> None:
    """Prints a table as wide as it is: a terminal breaks or scrolls its lines, where cut ones would say nothing."""
    table.width = console.measure(table, options=console.options.update(max_width=WIDEST)).maximum
    console.print(table, crop=False, soft_wrap=True)


def table_of(view: TableView) -> Table:
    table = Table(title=Text(view.title), title_justify="left", box=None, pad_edge=False)
    for i, column in enumerate(view.columns):
        measured = any(isinstance(row[i], Shown) for row in view.rows)
        table.add_column(Text(column), justify="right" if measured else "left", no_wrap=True)
    for row in view.rows:
        table.add_row(
            *(Text(each.text, STYLES.get(each.mark, "")) if isinstance(each, Shown) else Text(each) for each in row)
        )
    return table

"""Prints tables of any width so that no figure is cut: text wraps, and what is still too wide is printed in blocks.

Rich shortens a cell that has no room to "1,23…". Here columns of figures keep their width, columns of text share what
is left, and a table whose figures have no room side by side is printed as several, each with the first columns again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

TEXT_WIDTH = 10
"""Characters to which a column of text may shrink; longer words are broken there, as names and paths may be."""


def print_table(table: Table, console: Console) -> None:
    """Prints a table; columns that are aligned to the right, or that do not wrap, hold figures.

    Args:
        table: its first columns, up to the first one with figures, name a row. They are in each block.
        console: its width is respected down to that of the widest figure, which a narrower terminal wraps itself.
    """
    title, table.title = table.title, None
    if title is not None:
        console.print(Text.assemble((plain(title), "italic")))
    measured = [measure(table, column, console) for column in table.columns]
    for block in blocks(table, measured, console.width):
        part = columns_of(table, block)
        widths = fitting_widths(table, block, measured, console.width - frame(table, len(block)))
        if widths is None:
            print_records(table, console)
            break
        for column, width in zip(part.columns, widths, strict=True):
            column.width, column.min_width, column.max_width = width, None, None
            column.overflow, column.no_wrap = "fold", False
        console.print(part, crop=False, no_wrap=False)
    table.title = title


def plain(text: object) -> str:
    """A title without its style."""
    return text.plain if isinstance(text, Text) else str(text)


def holds_figures(column: Column) -> bool:
    """Whether a column must not be wrapped."""
    return column.justify == "right" or column.no_wrap


def measure(table: Table, column: Column, console: Console) -> Measurement:
    """The smallest and the largest width of a column, in characters, without padding."""
    wide = console.options.update(max_width=10_000)
    cells = [column.header, *column.cells] if table.show_header else list(column.cells)
    widest = max((Measurement.get(console, wide, cell).maximum for cell in cells), default=0)
    widest = max(widest, column.min_width or 0)
    if not holds_figures(column):
        longest_word = max((Measurement.get(console, wide, cell).minimum for cell in cells), default=0)
        return Measurement(min(longest_word, TEXT_WIDTH), widest)
    # A heading of several words may wrap above its figures.
    figures = max((Measurement.get(console, wide, cell).maximum for cell in column.cells), default=0)
    heading = Measurement.get(console, wide, column.header).minimum if table.show_header else 0
    return Measurement(max(figures, heading), widest)


def padding(table: Table) -> tuple[int, int]:
    """Blanks on the left and on the right of each column."""
    _, right, _, left = table.padding
    return max(0, left - right) if table.collapse_padding else left, right


def frame(table: Table, columns: int) -> int:
    """Characters that padding and lines take in a table of so many columns, as rich counts them."""
    each = sum(padding(table))
    blanks = each * columns if table.pad_edge else each * (columns - 1)
    lines = 0 if table.box is None else (columns - 1) + (2 if table.show_edge else 0)
    return blanks + lines


def blocks(table: Table, measured: Sequence[Measurement], width: int) -> Iterator[list[int]]:
    """The columns of each block, by number: as many as have room."""
    figures = [number for number, column in enumerate(table.columns) if holds_figures(column)]
    first = figures[0] if figures else 0
    keys, rest = list(range(first)), list(range(first, len(table.columns)))
    block = list(keys)
    for number in rest:
        wanted = [*block, number]
        if len(block) > len(keys) and sum(measured[i].minimum for i in wanted) + frame(table, len(wanted)) > width:
            yield block
            wanted = [*keys, number]
        block = wanted
    yield block


def fitting_widths(table: Table, block: Sequence[int], measured: Sequence[Measurement], width: int) -> list[int] | None:
    """The width of each column of a block; None if there is no room for the smallest ones.

    Args:
        table: the table.
        block: its columns, by number.
        measured: of all columns.
        width: the characters for all of them together.
    """
    widths = {number: measured[number].maximum for number in block}
    while sum(widths.values()) > width:
        shrinkable = [number for number in block if widths[number] > measured[number].minimum]
        if not shrinkable:
            return None
        # Text gives way before the headings of figures do.
        text = [number for number in shrinkable if not holds_figures(table.columns[number])]
        widths[max(text or shrinkable, key=lambda number: widths[number])] -= 1
    return [widths[number] for number in block]


def columns_of(table: Table, numbers: Sequence[int]) -> Table:
    """A table of some columns of another one, with its lines and styles."""
    left, right = padding(table)
    part = Table(
        box=table.box,
        safe_box=table.safe_box,
        padding=(0, right, 0, left),
        pad_edge=table.pad_edge,
        show_header=table.show_header,
        show_edge=table.show_edge,
        show_lines=table.show_lines,
        header_style=table.header_style,
    )
    columns = [table.columns[number] for number in numbers]
    for column in columns:
        part.add_column(column.header, justify=column.justify, style=column.style)
    for row, cells in zip(table.rows, zip(*(column.cells for column in columns), strict=True), strict=True):
        part.add_row(*cells, style=row.style, end_section=row.end_section)
    return part


def print_records(table: Table, console: Console) -> None:
    """Prints a line per cell, `heading: value`, for a terminal that is narrower than a name and a figure."""
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        for column, cell in zip(table.columns, cells, strict=True):
            heading, value = plain(column.header), plain(cell)
            line = f"{heading}: {value}" if heading else value
            if value:
                console.print(Padding(Text(line, overflow="fold"), (0, 0)))
        console.print()
